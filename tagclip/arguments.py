"""What callers pass: one image or many, one name or many. A string is one of them, never a list of letters."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, TypeGuard

import numpy as np
from PIL import Image

from tagclip.errors import UsageError
from tagclip.stored_files import StoredFile

ImageInput = str | os.PathLike[str] | StoredFile | Image.Image | np.ndarray


def is_one_image(value: Any) -> TypeGuard[ImageInput]:
    """Whether a value stands for one image: a path, a PIL image, or an array with at most three dimensions."""
    if isinstance(value, np.ndarray):
        return value.ndim < 4
    return isinstance(value, str | os.PathLike | StoredFile | Image.Image)


def as_images(value: Any) -> list[ImageInput]:
    """One image or several (a list, a generator, an array (B, H, W, 3)) as a list.

    Raises:
        UsageError: neither.
    """
    if is_one_image(value):
        return [value]
    if not isinstance(value, Iterable) or isinstance(value, bytes | dict):
        raise UsageError(f"{type(value).__name__} is no image: give a path, a PIL image, an array, or a list of them")
    images = list(value)
    for image in images:
        if not is_one_image(image):
            raise UsageError(f"{type(image).__name__} in a list of images: give paths, PIL images or arrays")
    return images


def as_names(value: str | Iterable[str], what: str) -> tuple[str, ...]:
    """One name or several as a tuple, in the order given.

    Args:
        what: the argument, for messages.

    Raises:
        UsageError: something else than names.
    """
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable) or isinstance(value, bytes):
        raise UsageError(f"{what}: {value!r} is no name and no list of names")
    names = tuple(value)
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"{what}: {name!r} is not a name; names are text")
    return names

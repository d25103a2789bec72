"""Masks on disk: palette PNGs whose values are the labels."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tagclip.errors import ImageError, UsageError

MAX_LABELS = 256  # of an 8-bit mask, the ignore label included
IDS = 256  # a mask is 8 bits deep: every id has its row and column, so nothing need be known before counting
IGNORE_COLOUR = (224, 224, 192)  # how PASCAL VOC paints pixels that do not count


def check_label_count(classes: int, has_background: bool) -> None:
    """Masks have 8 bits.

    Raises:
        UsageError: more classes than labels.
    """
    limit = MAX_LABELS - 1 - has_background
    if classes > limit:
        raise UsageError(f"{classes} classes do not fit into 8-bit masks: use at most {limit}")


def encode_mask(mask: np.ndarray, palette: np.ndarray, ignore_label: int = 255) -> bytes:
    """A label map as palette PNG: the values are the labels, a person opening it sees colours.

    Args:
        mask: (H, W) uint8.
        palette: colours by label, (labels, 3) uint8 RGB (`Vocabulary.label_palette`); others are black.
        ignore_label: painted as PASCAL VOC paints ignored pixels.

    Returns:
        The bytes of the file; the same mask always gives the same bytes.
    """
    colours = np.zeros((MAX_LABELS, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[ignore_label] = IGNORE_COLOUR
    image = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8))
    image.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def read_mask(path: Path) -> np.ndarray:
    """Label map of a palette or grey PNG.

    Returns:
        (H, W) uint8 class ids; the palette's colours are not looked at.

    Raises:
        ImageError: unreadable file, a colour image, or ids beyond 255.
    """
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such mask") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{path}: cannot be read as a mask ({error})") from None
    if values.ndim != 2:
        raise ImageError(f"{path}: a {mode} image is not a label map; save class ids in a palette or grey PNG")
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype != np.uint8:
        if values.size and (values.min() < 0 or values.max() >= IDS):
            raise ImageError(f"{path}: ids from {values.min()} to {values.max()}; a mask holds 0 to 255")
        values = values.astype(np.uint8)
    return values

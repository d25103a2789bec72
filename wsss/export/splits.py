"""Sharing images out over lists such as train and val, so that each class is in all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from tagclip.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)")


def parse_split(text: str) -> dict[str, float]:
    """ "train=0.9,val=0.1" -> {"train": 0.9, "val": 0.1}; "train" -> {"train": 1.0}.

    Raises:
        UsageError: a name that is no plain word, a share that is no number above 0, or shares that do not add up to 1.
    """
    parts = [part.strip() for part in text.split(",")]
    shares: dict[str, float] = {}
    for part in parts:
        name, _, number = part.partition("=")
        name = name.strip()
        if not _NAME.fullmatch(name) or _DEVICE.fullmatch(name):
            raise UsageError(f"--split {text!r}: {name!r} is no name of a list; use letters, digits and hyphens")
        if name in shares:
            raise UsageError(f"--split {text!r}: {name!r} is there twice")
        if not number and len(parts) == 1:
            return {name: 1.0}
        try:
            shares[name] = float(number)
        except ValueError:
            raise UsageError(f"--split {text!r}: {part!r} is not NAME=SHARE, like train=0.9,val=0.1") from None
        if not 0 < shares[name] <= 1:
            raise UsageError(f"--split {text!r}: a share is above 0 and at most 1")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UsageError(f"--split {text!r}: the shares add up to {sum(shares.values()):g}, not to 1")
    return shares


def stratified(tags: Sequence[Sequence[int]], shares: Mapping[str, float], seed: int = 0) -> list[str]:
    """Which list each image goes to: iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011).

    The class with the fewest images left is shared out first, each image to the list that lacks most of that class,
    so that rare classes are in every list as far as they suffice. Images without tags fill up at the end. A list never
    gets more images than its share, rounded up.

    Args:
        tags: class indices of each image.
        shares: of each list; they add up to 1.
        seed: of the order in which images are taken.

    Returns:
        The name of a list per image.
    """
    names = list(shares)
    if len(names) == 1:
        return names * len(tags)
    portions = np.array([shares[name] for name in names])
    order = np.random.default_rng(seed).permutation(len(tags)).tolist()
    classes = sorted({index for one in tags for index in one})
    holders: dict[int, list[int]] = {index: [] for index in classes}
    for image in order:
        for index in tags[image]:
            holders[index].append(image)
    lacking = {index: portions * len(holders[index]) for index in classes}
    wanted = portions * len(tags)
    left = {index: len(holders[index]) for index in classes}
    chosen = [-1] * len(tags)

    def give(image: int, need: np.ndarray) -> None:
        need = np.where(wanted > 0, need, -np.inf) if (wanted > 0).any() else need  # a list that is full takes no more
        most = np.flatnonzero(need >= need.max() - 1e-9)
        place = int(most[np.argmax(wanted[most])])
        chosen[image] = place
        wanted[place] -= 1
        for index in tags[image]:
            lacking[index][place] -= 1
            left[index] -= 1

    for _ in classes:
        rarest = min((index for index in left if left[index] > 0), key=lambda index: (left[index], index), default=None)
        if rarest is None:
            break
        for image in holders[rarest]:
            if chosen[image] < 0:
                give(image, lacking[rarest])
    for image in order:
        if chosen[image] < 0:
            give(image, wanted)
    return [names[place] for place in chosen]

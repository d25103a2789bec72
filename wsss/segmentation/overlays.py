"""Label maps as PNGs, and overlays on the photo; every file is whole or absent."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.files.atomic import atomic_file, disk_errors
from wsss.files.mask_files import colour_table, encode_mask


def save_label_map(
    path: Path, labels: np.ndarray, palette: Sequence[Sequence[int]] | np.ndarray, *, scratch: Path | None = None
) -> None:
    """Writes a PNG whose values are the labels, see `wsss.files.mask_files.encode_mask`.

    Args:
        path: the file; its folder is made.
        labels: (H, W) uint8 or uint16.
        palette: RGB colour of each label.
        scratch: folder for the temporary file, on the same file system; None: the mask's own.

    Raises:
        RunError: full disk or unwritable folder.
    """
    _save(path, encode_mask(labels, np.asarray(palette, np.uint8)), scratch)


def save_overlay(
    path: Path,
    rgb: np.ndarray,
    labels: np.ndarray,
    palette: Sequence[Sequence[int]] | np.ndarray,
    opacity: float = 0.55,
    *,
    scratch: Path | None = None,
) -> None:
    """Writes the photo with the labels' colours over it, as PNG.

    Args:
        path: the file; its folder is made.
        rgb: (H, W, 3) uint8.
        labels: (H, W) uint8 or uint16; where a label's colour is black (a background) the photo shows.
        palette: RGB colour of each label.
        opacity: of the colours, in [0, 1].
        scratch: as for `save_label_map`.
    """
    colours = colour_table(labels.dtype, np.asarray(palette, np.uint8))[labels]
    shown = (colours.sum(axis=2, keepdims=True) > 0).astype(np.float32) * opacity
    blend = rgb * (1 - shown) + colours * shown
    buffer = io.BytesIO()
    Image.fromarray(blend.round().astype(np.uint8)).save(buffer, "PNG")
    _save(path, buffer.getvalue(), scratch)


def _save(path: Path, content: bytes, scratch: Path | None) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, scratch or path.parent) as file:
        file.write(content)

"""CAMs on disk: one small npz an image, on the patch grid, without pickle."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tagclip.errors import ImageError


@dataclass(frozen=True)
class StoredCams:
    """The maps of one image.

    Attributes:
        cams: refined maps in [0, 1], (K, h, w), float16 or float32 as stored.
        classes: (K,) int16 class indices, ascending.
        size: (height, width) of the image in pixels, as the mask will have it.
        raw_cams: maps before the affinity, (K, h, w), or None if they were not kept.
    """

    cams: np.ndarray
    classes: np.ndarray
    size: tuple[int, int]
    raw_cams: np.ndarray | None = None

    def write(self, file: BinaryIO) -> None:
        """Writes the npz; the same maps always give the same bytes."""
        arrays = {
            "cams": self.cams,
            "classes": self.classes.astype(np.int16),
            "size": np.asarray(self.size, np.int32),
        }
        if self.raw_cams is not None:
            arrays["raw_cams"] = self.raw_cams
        np.savez_compressed(file, **arrays)


def read_cams(path: Path) -> StoredCams:
    """Reads what `StoredCams.write` wrote.

    Raises:
        ImageError: missing, damaged, or not a CAM file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            cams, classes, size = stored["cams"], stored["classes"], stored["size"]
            raw_cams = stored["raw_cams"] if "raw_cams" in stored.files else None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such CAM file") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:
        raise ImageError(f"{path}: damaged CAM file ({error}); delete it and run again, it is made anew") from None
    if cams.ndim != 3 or len(cams) != len(classes) or size.shape != (2,):
        raise ImageError(f"{path}: arrays of shapes {cams.shape}, {classes.shape}, {size.shape} are not CAMs")
    return StoredCams(cams, classes, (int(size[0]), int(size[1])), raw_cams)

"""Class maps on disk: one small npz per image, on the patch grid, without pickle."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from tagclip.errors import ImageError
from tagclip.stored_files import FilePlace, image_stream


@dataclass(frozen=True)
class StoredMaps:
    """The maps of one image.

    Attributes:
        maps: refined maps in [0, 1], (K, h, w), float16 or float32 as stored.
        classes: (K,) class indices, ascending; int16 on disk, int32 where one is too large for that.
        size: (height, width) of the image in pixels, as the mask will have it.
        raw: maps before the affinity, (K, h, w), or None if they were not kept.
    """

    maps: np.ndarray
    classes: np.ndarray
    size: tuple[int, int]
    raw: np.ndarray | None = None

    def write(self, file: BinaryIO) -> None:
        """Writes the npz; the same maps always give the same bytes."""
        fits = self.classes.max(initial=0) <= np.iinfo(np.int16).max
        arrays = {
            "cams": self.maps,
            "classes": self.classes.astype(np.int16 if fits else np.int32),
            "size": np.asarray(self.size, np.int32),
        }
        if self.raw is not None:
            arrays["raw_cams"] = self.raw
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_maps(path: FilePlace) -> StoredMaps:
    """Reads what `StoredMaps.write` wrote.

    Raises:
        ImageError: missing, damaged, or not a file of class maps.
    """
    try:
        with np.load(image_stream(path, whole=True), allow_pickle=False) as stored:
            maps, classes, size = stored["cams"], stored["classes"], stored["size"]
            raw = stored["raw_cams"] if "raw_cams" in stored.files else None
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file of class maps") from None
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ImageError(f"{path}: damaged class maps ({error}); delete the file and run again") from None
    if maps.ndim != 3 or len(maps) != len(classes) or size.shape != (2,):
        raise ImageError(f"{path}: arrays of shapes {maps.shape}, {classes.shape}, {size.shape} are not class maps")
    return StoredMaps(maps, classes, (int(size[0]), int(size[1])), raw)

"""plan.npz of a run folder: what the headers of its photos say, so that a restart need not read them again.

Columns of numbers and one block of names, replaced as a whole: many machines may read it while one writes it, without
a lock, on any file system.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss.files.atomic import atomic_file, disk_errors

PLAN_FILE = "plan.npz"
FORMAT = 1


@dataclass(frozen=True)
class PhotoHeaders:
    """Headers of a list of photos, one column each, in its order.

    Attributes:
        digest: of the names, see `wsss.pipeline.plan_table.names_digest`.
        apply_exif: whether sizes are those of turned photos.
        bytes: of the file, (N,) int64, -1 where it is not there.
        changed: time of its last change in nanoseconds, (N,) int64.
        height, width: of the image in pixels, (N,) int32, 0 where the header cannot be read.
    """

    digest: str
    apply_exif: bool
    bytes: np.ndarray
    changed: np.ndarray
    height: np.ndarray
    width: np.ndarray

    def __len__(self) -> int:
        return len(self.bytes)


def write_headers(path: Path, scratch: Path, headers: PhotoHeaders, names: bytes) -> None:
    r"""Keeps headers.

    Args:
        scratch: existing folder on the same file system.
        names: of the photos, each with a "\0" behind it.

    Raises:
        RunError: full disk.
    """
    with atomic_file(path, scratch) as file, disk_errors(path):
        np.savez(
            file, format=np.int64(FORMAT), digest=np.frombuffer(headers.digest.encode(), np.uint8),
            apply_exif=np.bool_(headers.apply_exif), bytes=headers.bytes, changed=headers.changed,
            height=headers.height, width=headers.width, names=np.frombuffer(names, np.uint8),
        )  # fmt: skip


def read_headers(path: Path, apply_exif: bool) -> PhotoHeaders | None:
    """Headers that were kept; None where there are none: headers are then read from the photos again.

    Args:
        apply_exif: what they must have been read with.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            if int(kept["format"]) != FORMAT or bool(kept["apply_exif"]) != apply_exif:
                return None
            columns = [kept[name] for name in ("bytes", "changed", "height", "width")]
            found = PhotoHeaders(kept["digest"].tobytes().decode(), apply_exif, *columns)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # a damaged file only costs time
        return None
    shapes = {column.shape for column in columns}
    sound = len(shapes) == 1 and columns[0].ndim == 1 and all(column.dtype.kind == "i" for column in columns)
    return found if sound else None


def read_names(path: Path) -> list[bytes]:
    """Names of the photos whose headers were kept, in order."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return kept["names"].tobytes().split(b"\0")[:-1]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return []

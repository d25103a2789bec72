"""Stored files as local ones, for libraries that open paths: each is written once, and again when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

from tagclip.stored_files import FilePlace
from wsss.files.atomic import atomic_file, disk_errors

UNPACKED = "unpacked"  # folder of a run


def local_file(place: FilePlace, folder: Path, name: str) -> Path:
    """A file that can be opened by its path: itself, or a copy of a stored one in a folder.

    Args:
        folder: of the copies. name: of the copy in it, without suffix.

    Raises:
        ImageError: it cannot be read. RunError: full disk.
    """
    if isinstance(place, Path):
        return place
    status, copy = place.stat(), folder / f"{name}{place.suffix}"
    try:
        there = copy.stat()
        if (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
            return copy
    except FileNotFoundError:
        pass
    scratch = folder / ".partial"
    with disk_errors(folder):
        scratch.mkdir(parents=True, exist_ok=True)
    with atomic_file(copy, scratch) as file:
        file.write(place.read_bytes())
        file.flush()
        os.utime(file.fileno(), ns=(status.st_mtime_ns, status.st_mtime_ns))
    return copy

"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tagclip.errors import RunError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk
ZIP_MAGIC = b"PK\x05\x06"
ZIP_END = struct.Struct("<4s6xHII2x")  # the last record of an archive without a comment

_serial = itertools.count()
_machine = uuid.uuid4().hex[:8]  # processes of several machines may have one number and one scratch folder


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk, or a file that cannot be written, into one line with the remedy.

    Raises:
        RunError: instead of any OSError inside.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise RunError(
                f"{path}: no space left on the disk ({os.strerror(error.errno)}); free some and run the same command "
                "again, it resumes where it stopped"
            ) from None
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None


@contextlib.contextmanager
def atomic_file(path: Path, scratch: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file that appears under its name whole or not at all.

    Args:
        path: where it shall be; its folder is made.
        scratch: existing folder on the same file system for the temporary file.
        durable: have it on the disk before it appears, so that a power cut cannot leave it empty.

    Raises:
        RunError: full disk or unwritable folder.
    """
    temporary = scratch / f"{os.getpid()}-{_machine}-{next(_serial)}"
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def is_whole(path: Path | str) -> bool:
    """Whether a PNG or npz ends as its format says; after a power cut a file may be empty, short, or end in zeros."""
    with open(path, "rb") as file:  # noqa: PTH123  # a million files, and no Path of each
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - ZIP_END.size))
        tail = file.read()
    if os.fspath(path).endswith(".png"):
        return tail.endswith(PNG_END)
    if len(tail) < ZIP_END.size:
        return False
    magic, entries, directory, start = ZIP_END.unpack(tail)
    return magic == ZIP_MAGIC and entries > 0 and start + directory + ZIP_END.size == size

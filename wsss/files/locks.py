"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from tagclip.errors import RunError
from wsss.files.atomic import disk_errors

logger = logging.getLogger(__name__)


class FolderBusyError(RunError):
    """Another process holds a folder."""


def take_lock(path: Path, place: str) -> BaseFileLock:
    """Holds a folder until the lock is released or the process ends in whatever way.

    Args:
        path: of the lock file; its folder exists.
        place: what messages call the folder: "--out runs/mine".

    Raises:
        FolderBusyError: another process holds it. RunError: the file cannot be written.
    """
    with disk_errors(path):
        try:
            return _held(FileLock(path, blocking=False))
        except Timeout:
            raise FolderBusyError(f"{place}: another process is working in this folder") from None
        except NotImplementedError:
            logger.warning("%s: the file system knows no locks; %s is kept while this runs", place, path)
    with disk_errors(path):
        try:
            return _held(SoftFileLock(path, blocking=False))
        except Timeout:
            raise FolderBusyError(
                f"{place}: another process is working in this folder; if none is, one was killed there: delete {path}"
            ) from None


@contextlib.contextmanager
def folder_lock(folder: Path, place: str) -> Iterator[None]:
    """Makes a folder and holds it; see `take_lock`."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder / ".lock", place)
    try:
        yield
    finally:
        leave_lock(lock)


def leave_lock(lock: BaseFileLock) -> None:
    """Lets others in and takes the lock file away."""
    path = Path(lock.lock_file)
    with contextlib.suppress(OSError):  # where an open file cannot be removed, it goes after the release
        path.unlink(missing_ok=True)
    lock.release()
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _held(lock: BaseFileLock) -> BaseFileLock:
    lock.acquire()
    return lock

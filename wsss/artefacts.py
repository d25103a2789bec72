"""Files that are either whole or absent, and records that survive a kill."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tagclip.errors import RunError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_serial = itertools.count()


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
                "again, it goes on where it stopped"
            ) from None
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None


@contextlib.contextmanager
def atomic_file(path: Path, scratch: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name whole or not at all.

    Args:
        path: where it shall be; its folder is made.
        scratch: existing folder on the same file system for the temporary file.

    Raises:
        RunError: full disk or unwritable folder.
    """
    temporary = scratch / f"{os.getpid()}-{next(_serial)}"
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


class Journal:
    """Records by image id, appended as work is done and written in input order when all of it is.

    Only ids and offsets are held in memory. A line that a kill cut short is dropped when the journal is opened again.

    Args:
        final: the ordered file, None for records that only an unfinished run needs; if it exists already, its
            records count as written.
        partial: the growing file.
        scratch: folder for temporary files.
    """

    def __init__(self, final: Path | None, partial: Path, scratch: Path):
        self.final, self.partial, self.scratch = final, partial, scratch
        self._places: dict[str, tuple[Path, int, int]] = {}
        if final is not None and final.is_file():
            self._index(final)
        if partial.is_file():
            end = self._index(partial)
            with disk_errors(partial), partial.open("r+b") as file:
                file.truncate(end)

    def _index(self, path: Path) -> int:
        """Notes where each whole record lies; returns the end of the last one."""
        end = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    key = json.loads(line)["id"] if line.endswith(b"\n") else None
                except (ValueError, KeyError, TypeError):
                    key = None
                if key is None:
                    break
                self._places[key] = (path, end, len(line))
                end += len(line)
        return end

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def ids(self) -> set[str]:
        """Ids that have a record."""
        return set(self._places)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds records (each with an "id") and hands them to the system at once: a kill later on does not lose them.

        Raises:
            RunError: full disk. What was cut short is then dropped on the next start.
        """
        lines = [(record["id"], json.dumps(record, ensure_ascii=False).encode() + b"\n") for record in records]
        with disk_errors(self.partial), self.partial.open("ab") as file:
            position = file.tell()
            file.write(b"".join(line for _, line in lines))
        for key, line in lines:
            self._places[key] = (self.partial, position, len(line))
            position += len(line)

    def discard(self, key: str) -> None:
        """Forgets a record: it will not be in the ordered file."""
        self._places.pop(key, None)

    def __getitem__(self, key: str) -> dict[str, Any]:
        path, offset, length = self._places[key]
        with path.open("rb") as file:
            file.seek(offset)
            return json.loads(file.read(length))

    def finish(self, order: Iterable[str]) -> None:
        """Writes the ordered file from the records whose ids `order` names."""
        if self.final is None:
            return
        with contextlib.ExitStack() as stack:
            sources = {
                path: stack.enter_context(path.open("rb")) for path in {place[0] for place in self._places.values()}
            }
            with atomic_file(self.final, self.scratch) as out:
                for key in order:
                    if key in self._places:
                        path, offset, length = self._places[key]
                        sources[path].seek(offset)
                        out.write(sources[path].read(length))

"""Records by image id that survive a kill."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tagclip.text_files import json_text, parse_json
from wsss.files.atomic import atomic_file, disk_errors


class Journal:
    """Records by image id, appended as work is done and written in input order when all of it is.

    Only ids and offsets are held in memory, and those of ordered files only once they are asked for. A line that a kill
    cut short is dropped when the journal is opened again.

    Args:
        final: the ordered file, None for records that only an unfinished run needs; if it exists already, its
            records count as written.
        partial: the growing file.
        scratch: folder for temporary files.
        others: further ordered files that hold records, see `distribute`.
    """

    def __init__(self, final: Path | None, partial: Path, scratch: Path, others: Sequence[Path] = ()):
        self.final, self.partial, self.scratch = final, partial, scratch
        self._ordered = [path for path in (final, *others) if path is not None]
        if partial.is_file():
            self._places  # noqa: B018  # now: a cut line must go before others are written behind it

    @cached_property
    def _places(self) -> dict[str, tuple[Path, int, int]]:
        """Where the record of each id lies: file, first byte and length."""
        places: dict[str, tuple[Path, int, int]] = {}
        for path in self._ordered:
            if path.is_file():
                self._index(path, places)
        if self.partial.is_file():
            end = self._index(self.partial, places)
            with disk_errors(self.partial), self.partial.open("r+b") as file:
                file.truncate(end)
        return places

    @staticmethod
    def _index(path: Path, places: dict[str, tuple[Path, int, int]]) -> int:
        """Notes where each whole record lies; returns the end of the last one."""
        end = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    key = parse_json(line)["id"] if line.endswith(b"\n") else None
                except (ValueError, KeyError, TypeError):
                    key = None
                if not isinstance(key, str):
                    break
                places[key] = (path, end, len(line))
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
        """Adds records (each with an "id") and has them on the disk at once: neither a kill nor a power cut loses them.

        Raises:
            RunError: full disk. What was cut short is then dropped on the next start.
        """
        places = self._places  # as they are before anything is written
        lines = [(record["id"], json_text(record).encode() + b"\n") for record in records]
        with disk_errors(self.partial), self.partial.open("ab") as file:
            position = file.tell()
            file.write(b"".join(line for _, line in lines))
            if self.final is not None:  # what only an unfinished run needs can be counted again
                file.flush()
                os.fsync(file.fileno())
        for key, line in lines:
            places[key] = (self.partial, position, len(line))
            position += len(line)

    def discard(self, key: str) -> None:
        """Forgets a record: it will not be in the ordered file."""
        self._places.pop(key, None)

    def __getitem__(self, key: str) -> dict[str, Any]:
        path, offset, length = self._places[key]
        with path.open("rb") as file:
            file.seek(offset)
            return parse_json(file.read(length))

    def finish(self, order: Iterable[str]) -> None:
        """Writes the ordered file from the records whose ids `order` names."""
        if self.final is not None:
            self.distribute({self.final: list(order)})

    def distribute(self, orders: Mapping[Path, Sequence[str]]) -> None:
        """Writes several ordered files, each from the records whose ids it names; one without any is removed."""
        # What goes from one file to another is kept elsewhere first: one may be replaced before the other is written.
        moved = [
            key
            for path, order in orders.items()
            for key in order
            if key in self._places and self._places[key][0] not in (path, self.partial)
        ]
        if moved:
            self.append([self[key] for key in moved])
        for path, order in orders.items():
            if order or path == self.final:
                self._write(path, order)
            else:
                path.unlink(missing_ok=True)

    def _write(self, path: Path, order: Iterable[str]) -> None:
        places: dict[str, tuple[Path, int, int]] = {}
        with contextlib.ExitStack() as stack:
            sources = {
                path: stack.enter_context(path.open("rb")) for path in {place[0] for place in self._places.values()}
            }
            with atomic_file(path, self.scratch, durable=True) as out:
                for key in order:
                    if key in self._places:
                        place, offset, length = self._places[key]
                        sources[place].seek(offset)
                        places[key] = (path, out.tell(), length)
                        out.write(sources[place].read(length))
        self._places.update(places)  # the file that they were in may have been this one, with other records before

"""The folder of an export: built beside its place, then moved there whole, or added to a data set file by file."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tagclip.errors import UsageError
from tagclip.text_files import json_text, parse_json
from wsss.files.atomic import disk_errors
from wsss.files.locks import take_lock
from wsss.files.provenance import read_record

RECORD = ".tagclip"  # folder inside an export: what made it, and which files
EXPORT_RECORD, FILE_LIST = "export.json", "files.txt"


@dataclass(frozen=True)
class MergeCounts:
    """What adding to a data set did.

    Attributes:
        added: files that are new. combined: files that got more content. left_alone: files that were there.
    """

    added: int = 0
    combined: int = 0
    left_alone: int = 0


class ExportFolder:
    """A folder that is being made. Use `ExportFolder.open`.

    Attributes:
        target: where the export shall be.
        root: where its files are written until it is complete; on the same file system.
        parts: for temporary files that are not part of the export.
    """

    def __init__(self, target: Path, root: Path, parts: Path):
        self.target, self.root, self.parts = target, root, parts

    @classmethod
    @contextlib.contextmanager
    def open(cls, target: Path) -> Iterator[ExportFolder]:
        """A new export for `target`, which is not touched before `publish` or `merge`. What a killed call left is
        removed.

        Raises:
            RunError: another process exports there, a full disk or an unwritable folder.
        """
        parent = target.absolute().parent
        root, parts = parent / f".{target.name}.partial", parent / f".{target.name}.parts"
        with disk_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
        lock = take_lock(parent / f".{target.name}.lock", str(target))
        try:
            for folder in (root, parts):
                shutil.rmtree(folder, ignore_errors=True)
                with disk_errors(folder):
                    folder.mkdir()
            yield cls(target, root, parts)
        finally:
            for folder in (root, parts):
                shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def path(self, name: str) -> Path:
        """Where a file of the export is written; its folder is made."""
        path = self.root / name
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: str | bytes) -> None:
        """Writes a file of the export.

        Raises:
            RunError: full disk.
        """
        path = self.path(name)
        with disk_errors(path):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Writes a small JSON file of the export."""
        self.write(name, json_text(value, indent=1) + "\n")

    def files(self) -> Iterator[str]:
        """Names of the files, "/" between folders, sorted within each folder."""
        for folder, folders, names in os.walk(self.root):
            folders.sort()
            place = Path(folder).relative_to(self.root)
            yield from ((place / name).as_posix() for name in sorted(names))

    def publish(self, record: Mapping[str, Any], *, overwrite: bool) -> int:
        """Moves the export to its place.

        Args:
            record: what made it.
            overwrite: files of an export that is there are replaced, and those that the new one does not have are
                removed; files of others stay.

        Returns:
            Files of others that stayed.

        Raises:
            UsageError: something is there and no `overwrite`.
            RunError: full disk or unwritable folder.
        """
        check_target(self.target, overwrite=overwrite)
        self._note(record, self.files())
        with contextlib.suppress(OSError):
            self.target.rmdir()  # an empty folder
        with disk_errors(self.target):
            if not self.target.exists():
                self.root.replace(self.target)
                return 0
        old = owned_files(self.target)
        # The record last: until then the old one tells what belongs to an export.
        new = sorted(self.files(), key=lambda name: name.startswith(f"{RECORD}/"))
        with disk_errors(self.target):
            for name in new:
                place = self.target / name
                place.parent.mkdir(parents=True, exist_ok=True)
                (self.root / name).replace(place)
            for name in old - set(new):
                (self.target / name).unlink(missing_ok=True)
                _remove_empty((self.target / name).parent, self.target)
        return sum(1 for _ in _strangers(self.target, set(new)))

    def merge(self, record: Mapping[str, Any], combine: Callable[[str, Path, Path], str | bytes | None]) -> MergeCounts:
        """Adds the export to the data set at its place. Nothing that is there is removed.

        Args:
            record: what made it.
            combine: gets the name of a file that both have, its path there, and that of the new one; returns the
                content that holds all of the old one and what is new, or None to leave the old one alone.

        Raises:
            UsageError: from `combine`: the two do not fit together; nothing was changed then.
        """
        combined: dict[str, Path] = {}
        fresh, alone = [], 0
        for name in self.files():
            there = self.target / name
            if not os.path.lexists(there):
                fresh.append(name)
                continue
            content = combine(name, there, self.root / name)
            if content is None:
                alone += 1
                continue
            whole = self.parts / f"combined-{len(combined)}"
            with disk_errors(whole):
                whole.write_bytes(content if isinstance(content, bytes) else content.encode())
            combined[name] = whole
        owned = owned_files(self.target)
        # Photos and masks first, lists of them last: a kill between the two leaves files that nothing names.
        with disk_errors(self.target):
            for name in fresh:
                place = self.target / name
                place.parent.mkdir(parents=True, exist_ok=True)
                (self.root / name).replace(place)
            for name, whole in combined.items():
                whole.replace(self.target / name)
        if owned:  # an earlier export of ours grows; a data set of others does not become ours
            self._note(record, sorted({*owned, *fresh}), self.target)
        return MergeCounts(len(fresh), len(combined), alone)

    def _note(self, record: Mapping[str, Any], names: Any, root: Path | None = None) -> None:
        place = (root or self.root) / RECORD
        listed = [json_text(name) + "\n" for name in names]
        with disk_errors(place):
            place.mkdir(exist_ok=True)
            for name, text in ((FILE_LIST, "".join(listed)), (EXPORT_RECORD, json_text(record, indent=1) + "\n")):
                temporary = self.parts / name
                temporary.write_bytes(text.encode())
                temporary.replace(place / name)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Refuses a place where something is.

    Raises:
        UsageError: a file; a folder that holds something, without `overwrite`; or one that is no export, with it.
    """
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir():
        raise UsageError(f"--out {target}: is a file; choose another folder")
    if not any(target.iterdir()):
        return
    is_ours = (target / RECORD / EXPORT_RECORD).is_file()
    if not is_ours:
        raise UsageError(f"--out {target}: holds files that are no export; choose another folder, or --merge-into")
    if not overwrite:
        raise UsageError(f"--out {target}: holds an export; --overwrite replaces it, --merge-into adds to it")


def owned_files(target: Path) -> set[str]:
    """Files that an earlier export wrote into a folder, by its own list; none without one."""
    path = target / RECORD / FILE_LIST
    if not path.is_file():
        return set()
    names = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            name = parse_json(line)
            # The list is data: nothing outside the folder is ever removed because of it.
            if (
                isinstance(name, str)
                and not PurePosixPath(name).is_absolute()
                and ".." not in PurePosixPath(name).parts
            ):
                names.add(name)
    return names


def export_record(target: Path) -> dict[str, Any] | None:
    """What made the export in a folder; None where there is none.

    Raises:
        RunError: it is damaged.
    """
    path = target / RECORD / EXPORT_RECORD
    return read_record(path, "choose another folder") if path.is_file() else None


def _strangers(target: Path, ours: set[str]) -> Iterator[str]:
    for folder, folders, names in os.walk(target):
        place = Path(folder).relative_to(target)
        if place == Path():
            folders[:] = [name for name in folders if name != RECORD]
        yield from (name for name in ((place / one).as_posix() for one in names) if name not in ours)


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent

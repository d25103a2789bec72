"""Masks, class maps and confidence of a run in tar shards, a few hundred images in each, with an index beside them.

`RUN/shards` holds `masks-000012.tar`, `cams-000012.tar`, `confidence-000012.tar` and `index-000012.jsonl`, which says
where in them each image's file is. A file that is in the run's folders as well is newer than the one in a shard.
Archives are never written anew: an index without an image is what drops it.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tagclip.errors import RunError, UsageError
from tagclip.folders import files_by_id
from tagclip.requirements import explained_imports
from tagclip.stored_files import FilePlace, is_url
from tagclip.text_files import json_text
from wsss.files.atomic import atomic_file, disk_errors
from wsss.files.run_files import json_lines
from wsss.files.tar_shards import BLOCK, ArchiveMember

SHARDS = "shards"  # folder of a run
LAYOUTS = ("files", "tar")
TAR = "tar"
SUFFIXES = {"cams": ".npz", "masks": ".png", "confidence": ".png"}  # of the files that every image has
IMAGES_PER_SHARD = 256
_INDEX = re.compile(r"index-(\d{6,})\.jsonl")


def check_layout(layout: str, out: str | Path = "") -> None:
    """Raises:
    UsageError: no such layout, or an address where a folder is needed. RequirementError: a package is missing.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    if is_url(out):
        raise UsageError(f"out {out}: results go to a folder; an address is taken as --out of `tagclip run` and `tag`")
    if layout == TAR:
        with explained_imports():
            import pyarrow  # noqa: F401


class ResultShards:
    """The shards of a run folder. Indexes are read when something is first asked for.

    Args:
        root: the run folder.
        only: number of the one shard that is looked at, that of a part; None: all.
    """

    def __init__(self, root: Path, only: int | None = None):
        self.root, self.folder, self.only = root, root / SHARDS, only

    def numbers(self) -> list[int]:
        """Numbers of the shards that are there, ascending."""
        if not self.folder.is_dir():
            return []
        found = (_INDEX.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match is not None)

    def path(self, kind: str, number: int) -> Path:
        """Of an archive."""
        return self.folder / f"{kind}-{number:06}.tar"

    def index_path(self, number: int) -> Path:
        """Of the index of a shard."""
        return self.folder / f"index-{number:06}.jsonl"

    @cached_property
    def _places(self) -> dict[str, dict[str, tuple[int, int, int]]]:
        """By kind and id: number of the shard, and where in its archive the file begins and how long it is."""
        found: dict[str, dict[str, tuple[int, int, int]]] = {kind: {} for kind in SUFFIXES}
        for number in self.numbers() if self.only is None else [self.only]:
            for line, place in json_lines(self.index_path(number)):
                name = line.get("id")
                for kind in SUFFIXES:
                    where = line.get(kind)
                    if where is None:
                        continue
                    if not isinstance(name, str) or not _is_place(where):
                        raise RunError(f"{place}: not a line of an index; copy the run again")
                    found[kind][name] = (number, where[0], where[1])
        return found

    def ids(self, kind: str) -> set[str]:
        """Ids of the images whose file of a kind is in a shard."""
        return set(self._places[kind])

    def find(self, kind: str, image_id: str) -> ArchiveMember | None:
        """The file of an image, None if it is in no shard."""
        where = self._places[kind].get(image_id)
        if where is None:
            return None
        number, offset, size = where
        path = self.path(kind, number)
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            stamp = 0  # reading says that it is gone
        return ArchiveMember(str(path), f"{image_id}{SUFFIXES[kind]}", offset, size, stamp)

    def pack(self, ids: Iterable[str], scratch: Path, number: int | None = None) -> None:
        """Moves the files of images from the run's folders into a shard. Killed anywhere, every file is there once.

        Args:
            scratch: existing folder for temporary files.
            number: of the shard; None, or that of one that is there: the next free one.

        Raises:
            RunError: full disk.
        """
        left = self._without_twins(ids)
        if not left:
            return
        if number is None or self.index_path(number).exists():
            number = max(self.numbers(), default=-1) + 1
        lines: dict[str, dict[str, Any]] = {name: {"id": name} for name, _ in left}
        for kind, suffix in SUFFIXES.items():
            names = [name for name, kinds in left if kind in kinds]
            if not names:
                continue
            with atomic_file(self.path(kind, number), scratch, durable=True) as file:
                archive = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
                for name in names:
                    source = self._loose(kind, name)
                    member = tarfile.TarInfo(f"{name}{suffix}")  # no times, no owners: the same files, the same bytes
                    member.size = source.stat().st_size
                    with source.open("rb") as stream:
                        archive.addfile(member, stream)
                    lines[name][kind] = [archive.offset - -(-member.size // BLOCK) * BLOCK, member.size]
                archive.close()
        self._write_index(number, lines.values(), scratch)
        with disk_errors(self.root):
            for name, kinds in left:
                for kind in kinds:
                    self._loose(kind, name).unlink(missing_ok=True)
                    self._places[kind][name] = (number, *lines[name][kind])

    def _loose(self, kind: str, name: str) -> Path:
        return self.root / kind / f"{name}{SUFFIXES[kind]}"

    def _without_twins(self, ids: Iterable[str]) -> list[tuple[str, list[str]]]:
        """(id, kinds) of the files to pack; those that a killed call has packed already are removed."""
        left, changed = [], []
        for name in ids:
            kinds = []
            for kind in SUFFIXES:
                path = self._loose(kind, name)
                if not path.is_file():
                    continue
                packed = self.find(kind, name)
                if packed is not None and packed.size == path.stat().st_size and _same(packed, path):
                    with disk_errors(path):
                        path.unlink()
                    continue
                if packed is not None:
                    changed.append((kind, name))
                kinds.append(kind)
            if kinds:
                left.append((name, kinds))
        self.forget(changed)
        return left

    def forget(self, files: Collection[tuple[str, str]]) -> None:
        """Drops (kind, id) from the indexes. What nothing names any more stays in its archive, unseen.

        Raises:
            RunError: full disk.
        """
        numbers = {
            self._places[kind][name][0] for kind, name in files if name in self._places[kind]
        }  # fmt: skip
        gone = set(files)
        for number in numbers:
            kept = []
            for line, _ in json_lines(self.index_path(number)):
                line = {key: value for key, value in line.items() if (key, line["id"]) not in gone}
                if len(line) > 1:
                    kept.append(line)
            if kept:
                self._write_index(number, kept, self.folder)
                continue
            with disk_errors(self.folder):
                self.index_path(number).unlink(missing_ok=True)
                for kind in SUFFIXES:
                    self.path(kind, number).unlink(missing_ok=True)
        for kind, name in gone:
            self._places[kind].pop(name, None)

    def _write_index(self, number: int, lines: Iterable[Mapping[str, Any]], scratch: Path) -> None:
        with atomic_file(self.index_path(number), scratch, durable=True) as file:
            for line in lines:
                file.write(json_text(line).encode() + b"\n")


def _is_place(where: Any) -> bool:
    return isinstance(where, list) and len(where) == 2 and all(isinstance(n, int) and n >= 0 for n in where)


def _same(packed: ArchiveMember, path: Path) -> bool:
    try:
        return packed.read_bytes() == path.read_bytes()
    except Exception:  # a damaged archive
        return False


def results_there(folder: Path) -> bool:
    """Whether a folder of masks, maps or confidence is there: as a folder, or in the shards of its run."""
    return folder.is_dir() or (folder.name in SUFFIXES and bool(ResultShards(folder.parent).numbers()))


def results_by_id(folder: Path, suffix: str) -> dict[str, FilePlace]:
    """The files of a folder of masks, maps or confidence by id, in order: those in it, and those in its run's shards.

    Args:
        folder: "RUN/masks", or any folder. suffix: of its files.

    Raises:
        UsageError: a folder that cannot be read, two files of one id. RunError: a damaged index.
    """
    loose: dict[str, FilePlace] = dict(files_by_id(folder, suffix)) if folder.is_dir() else {}
    if folder.name not in SUFFIXES:
        return loose
    shards = ResultShards(folder.parent)
    packed = {name: shards.find(folder.name, name) for name in shards.ids(folder.name) - loose.keys()}
    if not packed:
        return loose
    loose.update({name: file for name, file in packed.items() if file is not None})
    return dict(sorted(loose.items()))

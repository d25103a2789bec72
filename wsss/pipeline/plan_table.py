"""A plan of very many images: a few numbers per image, and objects only for those that are asked for."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar, overload
from weakref import WeakKeyDictionary

import numpy as np

from tagclip.image_lists import ImageFile, ImageFiles
from tagclip.stored_files import FilePlace
from wsss.files.concurrency import bounded_map
from wsss.files.kept_plan import PhotoHeaders, read_headers, read_names

Item = TypeVar("Item")
CHUNK = 1024  # files that a thread looks at, or names that are digested, in one go
_digests: WeakKeyDictionary[ImageFiles, str] = WeakKeyDictionary()


class Lazy(Sequence[Item], Generic[Item]):
    """A sequence whose items are made when they are asked for.

    Args:
        length: number of items. item: makes the one at a place.
    """

    def __init__(self, length: int, item: Callable[[int], Item]):
        self._length, self._item = length, item

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...

    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        if isinstance(place, slice):
            return [self._item(one) for one in range(*place.indices(self._length))]
        return self._item(range(self._length)[place])

    def __iter__(self) -> Iterator[Item]:
        return map(self._item, range(self._length))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_same, self, other))

    __hash__ = None  # type: ignore[assignment]


def _same(one: object, other: object) -> bool:
    return one == other


def listed_names(files: Sequence[ImageFile]) -> Iterator[str]:
    r"""Id and suffix of each file, with "\0" behind both: not where it lies, as photos may be moved."""
    if isinstance(files, ImageFiles):
        return map("{}\0{}\0".format, files.ids(), files.suffixes())
    return (f"{file.id}\0{file.path.suffix}\0" for file in files)


def names_digest(files: Sequence[ImageFile]) -> str:
    """sha256 (hex) of the names of a list of images; that of a folder is worked out once."""
    found = _digests.get(files) if isinstance(files, ImageFiles) else None
    if found is None:
        found = text_digest(listed_names(files))
        if isinstance(files, ImageFiles):
            _digests[files] = found
    return found


def text_digest(texts: Iterable[str]) -> str:
    """sha256 (hex) of texts, one after the other."""
    digest, left = hashlib.sha256(), iter(texts)
    while block := "".join(itertools.islice(left, CHUNK)):
        digest.update(block.encode(errors="surrogateescape"))
    return digest.hexdigest()


def place_of(files: Sequence[ImageFile], place: int) -> FilePlace:
    """Where a file is."""
    return Path(files.path_text(place)) if isinstance(files, ImageFiles) else files[place].path


def _path_text(files: Sequence[ImageFile], place: int) -> str | None:
    """The path of a file, without an object for it where there need not be one; None: it is no file of this machine."""
    if isinstance(files, ImageFiles):
        return files.path_text(place)
    path = files[place].path
    return str(path) if isinstance(path, Path) else None


def look_at(files: Sequence[ImageFile], digest: str, apply_exif: bool, workers: int) -> PhotoHeaders:
    """Sizes in bytes and times of change of all files; heights and widths are 0.

    Files in a store, an archive or a table are not looked at: their headers are read at every start.
    """
    sizes, changed = np.full(len(files), -1, np.int64), np.zeros(len(files), np.int64)

    def look(start: int) -> None:
        for place in range(start, min(start + CHUNK, len(files))):
            if (path := _path_text(files, place)) is None:
                continue
            try:
                status = os.stat(path)  # noqa: PTH116  # a million files, and no Path of each
            except (OSError, ValueError):
                continue
            sizes[place] = status.st_size
            changed[place] = status.st_mtime_ns

    with ThreadPoolExecutor(max_workers=max(1, workers)) as executor:
        for _ in bounded_map(executor, look, range(0, len(files), CHUNK), 4 * max(1, workers)):
            pass
    none = np.zeros(len(files), np.int32)
    return PhotoHeaders(digest, apply_exif, sizes, changed, none, none.copy())


def fill_from(kept: Path | None, seen: PhotoHeaders, files: Sequence[ImageFile]) -> PhotoHeaders:
    """Heights and widths that were kept, of files whose size in bytes and time of change are the same as then."""
    old = None if kept is None else read_headers(kept, seen.apply_exif)
    if old is None or kept is None:
        return seen
    if old.digest != seen.digest or len(old) != len(seen):
        places = _places(kept, files)
        if places is None:
            return seen
        there = places >= 0
        if places.max(initial=-1) >= len(old):
            return seen
        old = PhotoHeaders(
            seen.digest, seen.apply_exif,
            *(np.where(there, column[places], 0) for column in (old.bytes, old.changed, old.height, old.width)),
        )  # fmt: skip
        known = there & (old.bytes == seen.bytes) & (old.changed == seen.changed)
    else:
        known = (old.bytes == seen.bytes) & (old.changed == seen.changed)
    known &= (old.height > 0) & (old.width > 0) & (seen.bytes >= 0)
    height, width = (np.where(known, column, 0).astype(np.int32) for column in (old.height, old.width))
    return replace(seen, height=height, width=width)


def _places(kept: Path, files: Sequence[ImageFile]) -> np.ndarray | None:
    """Where each file stands in another list that was kept, -1 where it does not."""
    names = read_names(kept)
    if not names or len(names) % 2:
        return None
    pairs = zip(names[::2], names[1::2], strict=True)
    where = {name + b"\0" + suffix: place for place, (name, suffix) in enumerate(pairs)}
    found = (where.get(name[:-1].encode(errors="surrogateescape"), -1) for name in listed_names(files))
    return np.fromiter(found, np.int64, len(files))


@dataclass(frozen=True)
class BatchTable:
    """Batches of places in a list: members (M,) int32, of batch i those from bounds[i] to bounds[i + 1]."""

    members: np.ndarray
    bounds: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, limits: Sequence[int]) -> BatchTable:
        """The batches of `tagclip.batches.plan_batches`.

        Args:
            groups: number of the group that each place may share batches with, (N,) int, -1 for places to leave out.
            limits: most places in a batch, of each group.
        """
        order = np.argsort(groups, kind="stable").astype(np.int32)
        ends = np.searchsorted(groups[order], np.arange(len(limits) + 1))
        spans = [
            (start, min(start + limit, last))
            for first, last, limit in zip(ends[:-1].tolist(), ends[1:].tolist(), limits, strict=True)
            for start in range(first, last, limit)
        ]
        starts = np.array([start for start, _ in spans], np.int64)
        lengths = np.array([end for _, end in spans], np.int64) - starts
        rank = np.argsort(order[starts], kind="stable")  # batches come in the order of their first places
        starts, lengths = starts[rank], lengths[rank]
        bounds = np.zeros(len(starts) + 1, np.int64)
        np.cumsum(lengths, out=bounds[1:])
        members = order[np.repeat(starts - bounds[:-1], lengths) + np.arange(bounds[-1])]
        return cls(members, bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, place: int) -> list[int]:
        return self.members[self.bounds[place] : self.bounds[place + 1]].tolist()

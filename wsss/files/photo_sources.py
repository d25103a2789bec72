"""Photos wherever they are, found in one way: folders, lists, object stores, shards of WebDataset, Parquet files.

Commands find their photos here, and open each by its `ImageFile.path`, whatever it lies in.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from tagclip.errors import UsageError
from tagclip.folders import RESULTS, is_stray, visible_files
from tagclip.image_formats import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, readable_suffixes
from tagclip.image_ids import (
    distinct_ids,
    line_candidates,
    list_lines,
    member_problem,
    original_name,
    safe_id,
    without_suffix,
)
from tagclip.image_lists import GLOB_CHARACTERS, LIST_SUFFIXES, ImageFile, list_images
from tagclip.stored_files import (
    AbsentFile,
    RemoteFile,
    StoredFile,
    as_local_file,
    file_system,
    is_url,
    joined_url,
    local_place,
    store_errors,
)
from wsss.files.parquet_photos import table_cells
from wsss.files.tar_shards import archive_members

SHARDS = (".tar", ".parquet")
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|zip)$", re.IGNORECASE)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_SHARDS = 1_000_000
Source = str | Path | Sequence[str | Path]
Root = Path | str | tuple[str, ...]
logger = logging.getLogger(__name__)


def find_photos(
    source: Source, *, root: str | Path | None = None, exclude: str | Path | Collection[str | Path] = ()
) -> Sequence[ImageFile]:
    """Photos of whatever a user names, each with an id that never collides; `find_images` says more of local ones.

    Args:
        source: folder, glob, image or list of local images; an address ("s3://bucket/photos", "gs://", "memory://",
            "file://") of a folder, image, glob or list; tar shards as WebDataset writes them or Parquet files as
            Hugging Face's `datasets` writes them: one, a folder of them, "shards/*.tar", "shards/{000..009}.tar", an
            address of these; or several of one kind.
        root: of a list: the folder, the address or the shards that its images are in; ids are relative to it.
        exclude: folders or addresses that are not looked into, such as the run's own output.

    Returns:
        Images in the order of the list, of the shards, or of their paths. Ids in shards are the keys: paths without
        suffix.

    Raises:
        UsageError: nothing there, no image in it, sources of several kinds; what `archive_members` and `table_cells`
            refuse.
        RequirementError: the package that reads a store or Parquet is missing.
    """
    parts = [local_place(part) for part in ([source] if isinstance(source, str | Path) else source)]
    place = None if root is None else local_place(root)
    kinds = {_kind(part, place) for part in parts}
    if kinds <= {"local"}:
        local = [part for part in (exclude if not isinstance(exclude, str | Path) else (exclude,)) if not is_url(part)]
        return list_images(
            parts[0] if isinstance(source, str | Path) else parts, root=None if place is None else place, exclude=local
        )
    if len(kinds) > 1:
        raise UsageError(
            f"--images {' '.join(map(str, parts))}: {' and '.join(sorted(kinds))} in one call; give sources of one kind"
        )
    kind = kinds.pop()
    if kind == "list":
        if len(parts) > 1:
            raise UsageError(f"--images {parts[0]}: give one list")
        return _listed(str(parts[0]), place, exclude)
    if kind == "objects":
        found = [file for part in parts for file in _objects(str(part), exclude)]
        tops: Root = _one([str(part) if not GLOB_CHARACTERS & set(str(part)) else _base(str(part)) for part in parts])
    else:
        shards = list(dict.fromkeys(shard for part in parts for shard in _shards(str(part), f".{kind}")))
        found = list(_in_shards(shards, kind))
        tops = _one([str(part) if is_url(part) else os.path.abspath(part) for part in parts])  # noqa: PTH100
    if not found:
        looked = ", ".join(sorted(readable_suffixes()))
        raise UsageError(f"--images {parts[0]}: no image in it; looked for {looked}")
    return [replace(file, root=tops) for file in found]


def is_photo_store(place: object) -> bool:
    """Whether a place holds photos otherwise than as files of a local folder."""
    return not isinstance(place, str | Path) or _kind(local_place(place), None) not in ("local", "list")


def _one(places: list[str]) -> str | tuple[str, ...]:
    return places[0] if len(places) == 1 else tuple(places)


def _base(pattern: str) -> str:
    """The address of the folder that a glob begins in."""
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if GLOB_CHARACTERS & set(part))
    return "/".join(parts[:first])


def _kind(part: str | Path, root: str | Path | None) -> str:
    """"local", "list", "objects", "tar" or "parquet"."""
    text = str(part)
    if COMPRESSED.search(text):
        raise UsageError(f"--images {text}: a compressed archive; decompress it first: shards are plain .tar files")
    suffix = PurePosixPath(text).suffix.lower()
    if suffix in SHARDS:
        return suffix[1:]
    if suffix in LIST_SUFFIXES and (is_url(text) or (root is not None and is_photo_store(root))):
        return "list"
    if is_url(text):
        return _kind_of_objects(text)
    return _kind_of_folder(Path(text))


def _kind_of_folder(folder: Path) -> str:
    if folder.is_dir():
        readable = frozenset(readable_suffixes())
        found: set[str] = set()
        for path in visible_files(folder, "images"):
            suffix = path.suffix.lower()
            if suffix in readable:
                return "local"
            found |= {suffix} & set(SHARDS)
        if len(found) > 1:
            raise UsageError(f"--images {folder}: holds tar and Parquet files; name one kind: {folder}/*.tar")
        if found:
            return found.pop()[1:]
    return "local"


def _kind_of_objects(url: str) -> str:
    if GLOB_CHARACTERS & set(url) or PurePosixPath(url).suffix.lower() in IMAGE_SUFFIXES:
        return "objects"
    system, path = file_system(url)
    suffixes: set[str] = set()
    with store_errors(url):
        for name in system.find(path):
            suffix = PurePosixPath(name).suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                return "objects"
            suffixes |= {suffix} & set(SHARDS)
    return suffixes.pop()[1:] if len(suffixes) == 1 else "objects"


def _objects(url: str, exclude: str | Path | Collection[str | Path]) -> list[ImageFile]:
    """The images at an address."""
    system, path = file_system(url)
    is_pattern = bool(GLOB_CHARACTERS & set(url))
    with store_errors(f"--images {url}"):
        if is_pattern:
            found, top = system.glob(path, detail=True), _base(path)
        else:
            found, top = system.find(path, detail=True), path.rstrip("/")
            if not found:
                raise FileNotFoundError(url)
    if list(found) == [path]:  # one image
        top, url = path.rpartition("/")[0], url.rpartition("/")[0]
    base = _base(url) if is_pattern else url.rstrip("/")
    sizes = {
        name.removeprefix(top).lstrip("/"): (int(info["size"] or 0), info)
        for name, info in found.items()
        if info.get("type") == "file"
    }
    ours = _result_folders(sizes)
    excluded = [str(one).rstrip("/") for one in ([exclude] if isinstance(exclude, str | Path) else exclude)]
    kept: dict[str, RemoteFile] = {}
    strange, readable, foreign = 0, frozenset(readable_suffixes()), Counter[str]()
    for name in sorted(sizes):
        address = joined_url(base, name)
        if any(map(is_stray, name.split("/"))) or any(name.startswith(f"{folder}/") for folder in ours):
            continue
        if any(address.startswith(f"{one}/") for one in excluded):
            continue
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in readable:
            foreign[suffix] += suffix in FOREIGN_SUFFIXES or suffix in IMAGE_SUFFIXES
            continue
        if member_problem(name):
            strange += 1
            continue
        kept[name] = RemoteFile(address, name, sizes[name][0], _stamp(sizes[name][1]))
    if strange:
        logger.warning("%s: %d objects left out, whose names are no relative paths", url, strange)
    _tell_foreign(url, foreign)
    ids = distinct_ids(kept)
    return [ImageFile(ids[name], file) for name, file in kept.items()]


def _stamp(info: dict) -> int:
    """A number that changes with an object: of its digest, or of its time."""
    mark = str(info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("created") or "")
    return zlib.crc32(mark.encode())


def _result_folders(names: Iterable[str]) -> set[str]:
    """Folders that hold results of this project."""
    known = set(names)
    folders = {name.rpartition("/")[0] for name in known}
    return {
        folder for folder in folders
        if folder and any(all(f"{folder}/{file}" in known for file in row) for row in RESULTS)
    }  # fmt: skip


def _tell_foreign(place: str, foreign: Counter[str]) -> None:
    if foreign.total():
        shown = ", ".join(f"{suffix} {count}" for suffix, count in sorted((+foreign).items()))
        logger.warning("%s: %d photos left out, in formats that are not read: %s", place, foreign.total(), shown)


def _shards(part: str, suffix: str) -> list[str]:
    """Addresses or absolute paths of the shards that a text names, in order."""
    found: list[str] = []
    for text in _ranges(part):
        if is_url(text):
            system, path = file_system(text)
            with store_errors(f"--images {text}"):
                if GLOB_CHARACTERS & set(text):
                    names = sorted(system.glob(path))
                elif system.isfile(path):
                    names = [path]
                else:
                    names = sorted(name for name in system.find(path) if name.lower().endswith(suffix))
            found += [_address(text, path, name) for name in names]
        elif Path(text).is_dir():
            found += sorted(str(path.absolute()) for path in visible_files(Path(text)) if path.suffix.lower() == suffix)
        elif GLOB_CHARACTERS & set(text) and not Path(text).exists():
            found += sorted(map(os.path.abspath, glob.glob(text, recursive=True)))  # noqa: PTH207
        elif Path(text).is_file():
            found.append(os.path.abspath(text))  # noqa: PTH100
        else:
            raise UsageError(f"--images {text}: no such file or folder")
    if not found:
        raise UsageError(f"--images {part}: no {suffix} file there")
    return found


def _address(url: str, path: str, name: str) -> str:
    """The address of something that a store lists, as its path in the store is to that of a known address."""
    return url[: len(url) - len(path)] + name if url.endswith(path) else f"{url.partition('://')[0]}://{name}"


def _ranges(part: str) -> Iterator[str]:
    """"shards/{000..002}.tar" as its names, as WebDataset writes them."""
    found = _RANGE.search(part)
    if found is None:
        yield part
        return
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + MOST_SHARDS:
        raise UsageError(f"--images {part}: {found[0]} is no range; write it like {{000..009}}")
    for number in range(first, last + 1):
        yield from _ranges(f"{part[: found.start()]}{number:0{len(found[1])}}{part[found.end() :]}")


def _in_shards(shards: Sequence[str], kind: str) -> Iterator[ImageFile]:
    """The images of shards, under their keys."""
    known: dict[str, str] = {}
    foreign: Counter[str] = Counter()
    for shard in shards:
        found = _cells(shard) if kind == "parquet" else _members(shard, foreign)
        for name, file in found:
            if name in known:
                where = "twice" if known[name] == shard else f"as {known[name]} does"
                raise UsageError(
                    f"{shard}: holds the key {name!r} {where}; keys are ids, so give shards whose keys differ, or make "
                    "a run of each"
                )
            known[name] = shard
            yield ImageFile(name, file)
    _tell_foreign(shards[0] if len(shards) == 1 else f"{len(shards)} shards", foreign)


def _cells(shard: str) -> Iterator[tuple[str, StoredFile]]:
    return ((safe_id(name), cell) for name, cell in table_cells(shard))


def _members(shard: str, foreign: Counter[str]) -> Iterator[tuple[str, StoredFile]]:
    """(key, photo) of a tar shard: of the files of one key, the photo is that with the suffix of an image alone.

    `0001.jpg` beside `0001.seg.png` and `0001.json`: WebDataset's key is the name up to its first dot, and only
    `0001.jpg` is the photo. A photo whose own name has a dot, `IMG.2020.jpg`, is one as long as its key has no other.
    """
    readable = frozenset(readable_suffixes())
    photos: dict[str, StoredFile] = {}
    plain: set[str] = set()
    for member in archive_members(shard):
        if any(map(is_stray, member.relative.split("/"))):
            continue
        suffix = member.suffix.lower()
        if suffix in readable:
            photos[member.relative] = member
            if member.name.count(".") == 1:
                plain.add(without_suffix(member.relative))
        else:
            foreign[suffix] += suffix in FOREIGN_SUFFIXES or suffix in IMAGE_SUFFIXES
    chosen = {
        name: member for name, member in photos.items()
        if member.name.count(".") == 1 or _key(name) not in plain
    }  # fmt: skip
    if beside := len(photos) - len(chosen):
        logger.info("%s: %d pictures beside photos of the same key (masks, say) are no photos", shard, beside)
    ids = distinct_ids(chosen)
    return ((ids[name], member) for name, member in chosen.items())


def _key(name: str) -> str:
    """WebDataset's key of a member."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def _listed(
    name: str, root: str | Path | None, exclude: str | Path | Collection[str | Path]
) -> list[ImageFile]:
    """Images of a list whose photos, or which itself, lie in a store."""
    top = name.rpartition("/")[0] if root is None else root
    files = PhotoIndex(find_photos(top, exclude=exclude))
    found: dict[str, ImageFile] = {}
    missing = 0
    with as_local_file(name, "image list") as path:
        for number, line in list_lines(path, "image list"):
            file = next(filter(None, map(files.find, line_candidates(line))), None)
            if file is None:
                text = line_candidates(line)[0]
                if problem := member_problem(text):
                    raise UsageError(f"image list {name}, line {number}: {text!r} is no path ({problem})")
                file = ImageFile(safe_id(without_suffix(text)), AbsentFile(str(top), text), files.root)
                missing += 1
            found.setdefault(file.id, file)
    if not found:
        raise UsageError(f"image list {name}: no image in it; write one image id or path per line")
    if missing == len(found):
        first = next(iter(found.values()))
        raise UsageError(
            f"image list {name}: none of its images is there (first {first.path}); the place that its names are "
            "relative to is the image root: --image-root PLACE"
        )
    return list(found.values())


class PhotoIndex:
    """Photos of a store by id and by path; see `find_photos`."""

    def __init__(self, files: Sequence[ImageFile]):
        self.root = files[0].root if files else None
        self._by_path = {file.recorded: file for file in files}
        self._by_id = {file.id: file for file in files}

    def find(self, name: str) -> ImageFile | None:
        """The photo of a path or an id, however it is spelled."""
        for text in dict.fromkeys((name, name.replace("\\", "/"), original_name(name))):
            for spelling in (text, safe_id(without_suffix(text))):
                file = self._by_path.get(spelling) or self._by_id.get(spelling)
                if file is not None:
                    return file
        return None

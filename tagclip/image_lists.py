"""Finding images: folders, globs, single files, split lists; each image gets an id that never collides."""

import logging
import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import overload

from tagclip.errors import UsageError
from tagclip.folders import is_results, is_stray, visible_names
from tagclip.image_formats import FOREIGN_SUFFIXES, HEIF_EXTRA, HEIF_SUFFIXES, IMAGE_SUFFIXES, readable_suffixes
from tagclip.image_ids import are_plain, distinct_ids, is_plain, line_candidates, list_lines, original_name
from tagclip.stored_files import FilePlace, StoredFile

logger = logging.getLogger(__name__)

LIST_SUFFIXES = (".txt", ".lst", ".list")
GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True)
class ImageFile:
    """An image of a run.

    Attributes:
        id: path relative to the image root without suffix, "/" between folders; with the suffix where another image
            differs in nothing else; escaped where no file system could hold it, see `tagclip.image_ids`.
        path: where it lies; it need not exist if a list named it.
        root: image root, absolute; None where the images of one call have several. Of stored files: the place that
            was searched, an address or paths of shards.
    """

    id: str
    path: FilePlace
    root: Path | str | tuple[str, ...] | None = None

    @property
    def recorded(self) -> str:
        """The path as files on disk hold it: relative to the image root, so that photos can move; absolute if none."""
        if isinstance(self.path, StoredFile):
            return self.path.relative
        path = self.path.absolute()
        return (path.relative_to(self.root) if isinstance(self.root, Path) else path).as_posix()


class ImageFiles(Sequence[ImageFile]):
    """Images of one folder, of which only the names are held: an `ImageFile` is made when it is asked for.

    Args:
        top: the folder, as it was given.
        names: paths below it, "/" between folders, sorted; each has the suffix of an image.
        prefix: what stands before a name in ids: "sub/" where the image root lies above.
    """

    def __init__(self, top: Path, names: list[str], prefix: str = ""):
        self.top, self.names, self.prefix = top, names, prefix
        self._start = f"{top}{os.sep}"
        self._ids = None if self._all_plain() else distinct_ids(f"{prefix}{name}" for name in names)
        self.root = _common_root({f"{prefix}{name}": Path(top, name) for name in names[:1]})

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> ImageFile: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[ImageFile]: ...

    def __getitem__(self, place: int | slice) -> ImageFile | Sequence[ImageFile]:
        if isinstance(place, slice):
            return self if place == slice(None) else [self._file(name) for name in self.names[place]]
        return self._file(self.names[place])

    def __iter__(self) -> Iterator[ImageFile]:
        return map(self._file, self.names)

    def id(self, place: int) -> str:
        """Of the image at a place."""
        return self._id(self.names[place])

    def path_text(self, place: int) -> str:
        """Path of the image at a place."""
        return self._start + self.names[place]

    def ids(self) -> Iterator[str]:
        """Of all images."""
        if self._ids is not None or self.prefix:
            return map(self._id, self.names)
        return (name[: name.rfind(".")] for name in self.names)

    def suffixes(self) -> Iterator[str]:
        """Of all images, as their names have them."""
        return (name[name.rfind(".") :] for name in self.names)

    def _file(self, name: str) -> ImageFile:
        return ImageFile(self._id(name), Path(self.top, name), self.root)

    def _id(self, name: str) -> str:
        whole = f"{self.prefix}{name}"
        return whole[: whole.rfind(".")] if self._ids is None else self._ids[whole]

    def _all_plain(self) -> bool:
        """Whether every name without its suffix is an id, and no two are the same."""
        if not are_plain(self.names) or (self.prefix and not is_plain(self.prefix[:-1])):
            return False
        stems = array("q", (hash(name[: name.rfind(".")]) for name in self.names))
        return len(set(stems)) == len(stems)


def list_images(
    source: str | Path | Sequence[str | Path],
    *,
    root: str | Path | None = None,
    exclude: str | Path | Collection[str | Path] = (),
) -> Sequence[ImageFile]:
    """`find_images`, with a few bytes per image where the source is one folder."""
    if isinstance(source, str | Path) and Path(source).is_dir():
        search = _Search(None if root is None else Path(root), _resolved(exclude))
        return ImageFiles(Path(source), *search.names(Path(source)))
    return find_images(source, root=root, exclude=exclude)


def find_images(
    source: str | Path | Sequence[str | Path],
    *,
    root: str | Path | None = None,
    exclude: str | Path | Collection[str | Path] = (),
) -> list[ImageFile]:
    """Images of a folder (recursive), a glob, a file, a split list, or several of these.

    Hidden files and folders are left out, and what systems leave beside photos (`._a.jpg`, `Thumbs.db`, `@eaDir`).
    Photos in a format that is not read here are counted by suffix in one line of the log. The order does not depend on
    the file system: folders and globs are sorted by relative path; a list keeps its own order and may name images that
    are missing, which is for the run to report.

    Args:
        source: folder; glob such as "photos/**/*.jpg"; image; list (.txt, .lst, .list) with an image id or path,
            relative to `root`, at the start of each line; or a sequence of folders, globs and images.
        root: image root of a list (default: the list's folder); ids are relative to it, of other sources too.
        exclude: folders that folders and globs do not look into, such as the run's own output; one that holds the
            source itself has no effect. Folders below the source that hold the results of another run are left out,
            too, and named in the log.

    Raises:
        UsageError: nothing there, no image in it, an unreadable folder, or a list line that leaves the root.
    """
    search = _Search(None if root is None else Path(root), _resolved(exclude))
    if not isinstance(source, str | Path):
        found: list[tuple[str, Path]] = []
        for part in source:
            found.extend(search.find(part))
        if not found:
            raise UsageError("no image given")
    else:
        found = search.find(source)
    return _with_ids(found)


def _resolved(folders: str | Path | Iterable[str | Path]) -> frozenset[Path]:
    if isinstance(folders, str | Path):
        folders = (folders,)
    return frozenset(Path(folder).resolve() for folder in folders)


@dataclass
class _Search:
    """One call of `find_images`; its methods give (relative posix path with suffix, path) of each image."""

    root: Path | None
    exclude: frozenset[Path]
    suffixes: frozenset[str] = field(default_factory=lambda: frozenset(readable_suffixes()))

    def find(self, source: str | Path) -> list[tuple[str, Path]]:
        path = Path(source)
        if path.is_dir():
            return self._folder(path)
        if path.is_file():
            root = path.parent if self.root is None else self.root
            if path.suffix.lower() in LIST_SUFFIXES:
                return _read_list(path, root)
            return [(_relative(path, root), path)]
        if GLOB_CHARACTERS & set(str(source)):
            return self._glob(path)
        raise UsageError(f"images {str(source)!r}: no such file or folder")

    def _folder(self, top: Path) -> list[tuple[str, Path]]:
        names, prefix = self.names(top)
        return [(f"{prefix}{name}", Path(top, name)) for name in names]

    def names(self, top: Path) -> tuple[list[str], str]:
        """Names of the images below a folder, sorted, and what stands before them in paths relative to the root."""
        foreign: Counter[str] = Counter()
        found = visible_names(top, "images", self.exclude, self._is_results)
        names = sorted(  # most suffixes are as they are looked for: a million names
            name for name in found
            if name[name.rfind(".") :] in self.suffixes or self._is_readable(_suffix(name), foreign)
        )  # fmt: skip
        if not names:
            looked = f"looked for {', '.join(sorted(self.suffixes))}"
            raise UsageError(f"folder {top}: no image in it ({_count(foreign) or looked})")
        _tell(foreign, f"folder {top}")
        inside = "." if self.root is None else _relative(top, self.root)
        return names, "" if inside == "." else f"{inside}/"

    def _glob(self, pattern: Path) -> list[tuple[str, Path]]:
        parts = pattern.parts
        first = next(index for index, part in enumerate(parts) if GLOB_CHARACTERS & set(part))
        base = Path(*parts[:first])
        top = base if self.root is None else self.root
        foreign: Counter[str] = Counter()
        exclude = self.exclude - {base.resolve(), *base.resolve().parents}

        @cache
        def is_excluded(folder: Path) -> bool:
            real = folder.resolve()
            if not exclude.isdisjoint((real, *real.parents)):
                return True
            inside = folder.relative_to(base).parts
            return any(map(is_in_results, (base.joinpath(*inside[:depth]) for depth in range(1, len(inside) + 1))))

        is_in_results = cache(self._is_results)

        try:
            matches = base.glob(str(Path(*parts[first:])))
            shown = (path for path in matches if not any(map(is_stray, path.relative_to(base).parts)))
            kept = (path for path in shown if not is_excluded(path.parent))
            paths = [path for path in self._readable(kept, foreign) if path.is_file()]
        except (OSError, ValueError, NotImplementedError) as error:
            raise UsageError(f"glob {str(pattern)!r}: {error}") from error
        if not paths:
            reason = _count(foreign) or "quote it, so that the shell leaves it alone"
            raise UsageError(f"glob {str(pattern)!r}: no image matches ({reason})")
        _tell(foreign, f"glob {str(pattern)!r}")
        return sorted((_relative(path, top), path) for path in paths)

    def _is_results(self, folder: Path) -> bool:
        found = is_results(folder)
        if found:
            logger.warning("folder %s: left out, it holds the results of another run", folder)
        return found

    def _readable(self, paths: Iterable[Path], foreign: Counter[str]) -> Iterator[Path]:
        """Those in a format that is read here; the other pictures are counted."""
        return (path for path in paths if self._is_readable(path.suffix.lower(), foreign))

    def _is_readable(self, suffix: str, foreign: Counter[str]) -> bool:
        if suffix not in self.suffixes and (suffix in FOREIGN_SUFFIXES or suffix in IMAGE_SUFFIXES):
            foreign[suffix] += 1
        return suffix in self.suffixes


def _suffix(name: str) -> str:
    """`Path(name).suffix.lower()`, for very many names."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > name.rfind("/") + 1 and dot < len(name) - 1 else ""


def _tell(foreign: Counter[str], place: str) -> None:
    if foreign:
        logger.warning("%s: %s", place, _count(foreign))


def _count(foreign: Counter[str]) -> str:
    """"3 photos in formats that are not read: .heic 2 (...), .cr2 1"; empty without any."""
    if not foreign:
        return ""
    shown = [
        f"{suffix} {count}" + (f" ({HEIF_EXTRA} reads them)" if suffix in HEIF_SUFFIXES else "")
        for suffix, count in sorted(foreign.items(), key=lambda item: (-item[1], item[0]))
    ]
    return f"{foreign.total()} photos left out, in formats that are not read: {', '.join(shown)}"


def _read_list(path: Path, root: Path) -> list[tuple[str, Path]]:
    if not root.is_dir():
        raise UsageError(f"image root {root}: no such folder")
    folders = _Folders(root)
    found: dict[str, Path] = {}
    repeated = 0
    for number, line in list_lines(path, "image list"):
        relative, file = _listed(line, folders, f"image list {path}, line {number}")
        repeated += relative in found
        found.setdefault(relative, file)
    if not found:
        raise UsageError(f"image list {path}: no image in it; write one image id or path per line")
    if repeated:
        logger.warning("%s: %d repeated lines left out", path, repeated)
    if folders.ambiguous:
        logger.warning(
            "%s: %d ids have files of several formats, the first of %s is taken; write the suffix to choose",
            path, folders.ambiguous, ", ".join(IMAGE_SUFFIXES[:5]),
        )  # fmt: skip
    if not any(map(_is_file, found.values())):
        first = next(iter(found.values()))
        raise UsageError(
            f"image list {path}: none of its images is there (first {first}); the "
            "folder that its names are relative to is the image root: --image-root DIR"
        )
    return list(found.items())


class _Folders:
    """Files below an image root, looked up by names with and without suffix; each folder is read at most once."""

    def __init__(self, root: Path):
        self.root = root
        self.ambiguous = 0  # ids that several files have
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, relative: str) -> str | None:
        """The relative path with suffix of the file that is meant, None if there is none."""
        if _is_file(self.root / relative):
            return relative
        folder, _, name = relative.rpartition("/")
        fitting = self._listing(self.root / folder).get(name, ())
        if not fitting:
            return None
        self.ambiguous += len(fitting) > 1
        return f"{folder}/{fitting[0]}" if folder else fitting[0]

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """Name without the suffix of an image format -> names, in the order of IMAGE_SUFFIXES."""
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            for name in sorted(_names(folder)):
                stem, dot, suffix = name.rpartition(".")
                if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES:
                    listing.setdefault(stem, []).append(name)
            for same in listing.values():
                same.sort(key=lambda name: IMAGE_SUFFIXES.index(PurePosixPath(name).suffix.lower()))
            self._listings[folder] = listing
        return self._listings[folder]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a line longer than names can be
        return False


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (a million names, and no Path of each)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"folder {folder}: {error.strerror or error}; images in it would be missed") from error


def _listed(line: str, folders: _Folders, place: str) -> tuple[str, Path]:
    """The image of a line; one that is not there under its first word."""
    for text in line_candidates(line):
        # As it stands; with the folders of a list that was made on Windows; or an escaped id.
        for name in dict.fromkeys((text, text.replace("\\", "/"), original_name(text))):
            inside = _inside(name, folders.root, place)
            found = folders.find(inside)
            if found is not None:
                return found, folders.root / found
    inside = _inside(text.replace("\\", "/"), folders.root, place)
    return inside, folders.root / inside


def _inside(text: str, root: Path, place: str) -> str:
    """`text` as a normalised path relative to the root, which it must not leave."""
    path = Path(text)
    if path.is_absolute():
        try:
            path = path.relative_to(root.absolute())
        except ValueError:
            raise UsageError(f"{place}: {text!r} lies outside the image root {root}") from None
    if ".." in path.parts or "\0" in text or path == Path():
        raise UsageError(f"{place}: {text!r} is not a path inside the image root {root}")
    return path.as_posix()


def _relative(path: Path, root: Path) -> str:
    try:
        relative = path.absolute().relative_to(root.absolute())
    except ValueError:
        raise UsageError(f"image {path} lies outside the image root {root}") from None
    return relative.as_posix()


def _with_ids(found: Sequence[tuple[str, Path]]) -> list[ImageFile]:
    unique: dict[str, Path] = {}
    for relative, path in found:
        if unique.setdefault(relative, path).absolute() != path.absolute():
            raise UsageError(f"images {unique[relative]} and {path} would share an id; give a common image root")
    ids = distinct_ids(unique)
    root = _common_root(unique)
    return [ImageFile(ids[relative], path, root) for relative, path in unique.items()]


def _common_root(paths: Mapping[str, Path]) -> Path | None:
    """The folder that all paths are relative to, by their relative path; None if there are several."""
    roots = set()
    for relative, path in paths.items():
        absolute = path.absolute().as_posix()
        if not absolute.endswith(f"/{relative}"):
            return None
        roots.add(absolute.removesuffix(relative))
    return Path(roots.pop()) if len(roots) == 1 else None

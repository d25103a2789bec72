"""Finding images: folders, globs, single files, split lists; each image gets an id that never collides."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tagclip.errors import UsageError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
LIST_SUFFIXES = (".txt", ".lst", ".list")
GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True)
class ImageFile:
    """An image of a run.

    Attributes:
        id: path relative to the image root without suffix, "/" between folders; with the suffix where another image
            differs in nothing else.
        path: where it lies; it need not exist if a list named it.
    """

    id: str
    path: Path


def find_images(source: str | Path | Sequence[str | Path], *, root: str | Path | None = None) -> list[ImageFile]:
    """Images of a folder (recursive), a glob, a file, a split list, or several of these.

    Hidden files and folders are left out. The order does not depend on the file system: folders and globs are sorted
    by relative path; a list keeps its own order and may name images that are missing, which is for the run to report.

    Args:
        source: folder; glob such as "photos/**/*.jpg"; image; list (.txt, .lst, .list) with an image id or path,
            relative to `root`, at the start of each line; or a sequence of folders, globs and images.
        root: image root of a list (default: the list's folder); ids are relative to it, of other sources too.

    Raises:
        UsageError: nothing there, no image in it, an unreadable folder, or a list line that leaves the root.
    """
    if not isinstance(source, str | Path):
        found: list[tuple[str, Path]] = []
        for part in source:
            found.extend(_find(part, root))
        if not found:
            raise UsageError("no image given")
    else:
        found = _find(source, root)
    return _with_ids(found)


def _find(source: str | Path, root: str | Path | None) -> list[tuple[str, Path]]:
    """(relative posix path with suffix, path) of each image."""
    path = Path(source)
    if path.is_dir():
        pairs = sorted(_walk(path, path if root is None else Path(root)))
        if not pairs:
            raise UsageError(f"folder {path}: no image in it (looked for {', '.join(IMAGE_SUFFIXES)})")
        return pairs
    if path.is_file():
        if path.suffix.lower() in LIST_SUFFIXES:
            return _read_list(path, path.parent if root is None else Path(root))
        return [(_relative(path, path.parent if root is None else Path(root)), path)]
    if GLOB_CHARACTERS & set(str(source)):
        return _expand(path, root)
    raise UsageError(f"images {str(source)!r}: no such file or folder")


def _walk(top: Path, root: Path) -> Iterator[tuple[str, Path]]:
    def refuse(error: OSError) -> None:
        raise UsageError(f"folder {error.filename or top}: {error.strerror or error}; images in it would be missed")

    seen = set()
    for folder, folders, files in os.walk(top, onerror=refuse, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:  # a link back up, or to a folder that was here already
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(folder) / name
            if not name.startswith(".") and path.suffix.lower() in IMAGE_SUFFIXES:
                yield _relative(path, root), path


def _expand(pattern: Path, root: str | Path | None) -> list[tuple[str, Path]]:
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if GLOB_CHARACTERS & set(part))
    base = Path(*parts[:first])
    top = base if root is None else Path(root)
    try:
        matches = base.glob(str(Path(*parts[first:])))
        shown = (path for path in matches if not _hidden(path.relative_to(base)))
        paths = [path for path in shown if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    except (OSError, ValueError, NotImplementedError) as error:
        raise UsageError(f"glob {str(pattern)!r}: {error}") from error
    if not paths:
        raise UsageError(f"glob {str(pattern)!r}: no image matches (quote it, so that the shell leaves it alone)")
    return sorted((_relative(path, top), path) for path in paths)


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _read_list(path: Path, root: Path) -> list[tuple[str, Path]]:
    if not root.is_dir():
        raise UsageError(f"image root {root}: no such folder")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"image list {path}: cannot be read as text ({error})") from error
    found: dict[str, Path] = {}
    repeated = 0
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        relative, file = _listed(line, root, f"image list {path}, line {number}")
        repeated += relative in found
        found.setdefault(relative, file)
    if not found:
        raise UsageError(f"image list {path}: no image in it; write an image id or path a line")
    if repeated:
        logger.warning("%s: %d repeated lines left out", path, repeated)
    if not any(file.exists() for file in found.values()):
        first = next(iter(found.values()))
        raise UsageError(f"image list {path}: none of its images is there (first {first}); give the right image root")
    return list(found.items())


def _listed(line: str, root: Path, place: str) -> tuple[str, Path]:
    """The whole line if that is a file (names may hold blanks), else its first word."""
    candidates = dict.fromkeys((line, line.split()[0]))
    for text in candidates:
        inside = _inside(text, root, place)
        for suffix in ("", *IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)):
            file = root / f"{inside}{suffix}"
            if file.is_file():
                return f"{inside}{suffix}", file
    return inside, root / inside


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
    ids = {relative: _without_suffix(relative) for relative in unique}
    while True:
        counts = Counter(ids.values())
        shared = [relative for relative, name in ids.items() if counts[name] > 1 and name != relative]
        if not shared:
            return [ImageFile(ids[relative], path) for relative, path in unique.items()]
        for relative in shared:
            ids[relative] = relative


def _without_suffix(relative: str) -> str:
    path = PurePosixPath(relative)
    return path.with_suffix("").as_posix() if path.suffix.lower() in IMAGE_SUFFIXES else relative

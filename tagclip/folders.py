"""The one walk through folders of files: photos, masks, maps, labels."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tagclip.errors import UsageError
from tagclip.image_ids import safe_id

# What systems and shares leave beside files; names with a dot in front are hidden anyway.
STRAY_NAMES = frozenset({"thumbs.db", "desktop.ini", "@eadir", "__macosx"})
# Files of which a folder of results has all of one row: a run, masks made again, a trained model's answers, an export.
RESULTS = (
    ("manifest.json", "config.py"), ("masks.json", "classes.json"), ("segmentation.json", "classes.json"),
    (".tagclip/export.json", ".tagclip/files.txt"),
)  # fmt: skip
NAMES_SHOWN = 4


def walk_files(top: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """(id, path) of the files with a suffix, in whatever case it is written, in the order of their ids.

    Hidden files and folders (`.DS_Store`, macOS's `._name`), what systems leave (`Thumbs.db`), and folders whose names
    end like files are no such files. The id is the relative path without the suffix, as `safe_id` writes it.

    Args:
        suffix: with its dot, lower case.

    Raises:
        UsageError: a folder that cannot be read, or two files with the same id, as of suffixes that differ in case.
    """
    names: dict[str, Path] = {}
    for path in visible_files(top):
        if path.suffix.lower() == suffix and path.is_file():
            name = safe_id(path.relative_to(top).as_posix()[: -len(suffix)])
            other = names.setdefault(name, path)
            if other != path:
                raise UsageError(f"{other} and {path.name} have the same id; remove one")
    yield from sorted(names.items())


def files_by_id(top: Path, suffix: str) -> dict[str, Path]:
    """`walk_files` as a mapping."""
    return dict(walk_files(top, suffix))


def nothing_found(top: Path, suffix: str) -> str:
    """"no .png file in it (12 .jpg, 3 .bmp)": what a folder holds instead, for messages."""
    others = Counter(path.suffix.lower() or "without suffix" for path in visible_files(top))
    most = sorted(others.items(), key=lambda found: (-found[1], found[0]))[:NAMES_SHOWN]
    counts = ", ".join(f"{count} {name}" for name, count in most)
    return f"no {suffix} file in it" + (f" ({counts})" if counts else "")


def user_cache(name: str) -> Path:
    """A folder of ours in the user's cache: XDG_CACHE_HOME, else ~/.cache. It need not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tagclip" / name


def is_stray(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or something that a system left: never a photo or a mask."""
    return name.startswith(".") or name.lower() in STRAY_NAMES


def is_results(folder: Path) -> bool:
    """Whether a command of this project has written its results into a folder, masks and overlays among them."""
    return any(all((folder / name).is_file() for name in names) for names in RESULTS)


def visible_files(
    top: Path,
    what: str = "files",
    exclude: Collection[Path] = frozenset(),
    leave_out: Callable[[Path], bool] = lambda folder: False,
) -> Iterator[Path]:
    """`visible_names` as paths."""
    for name in visible_names(top, what, exclude, leave_out):
        yield Path(top, name)


def visible_names(
    top: Path,
    what: str = "files",
    exclude: Collection[Path] = frozenset(),
    leave_out: Callable[[Path], bool] = lambda folder: False,
) -> Iterator[str]:
    """Files in a folder and its subfolders that are not stray; links are followed, each folder is seen once.

    Returns:
        Their paths relative to `top`, with "/" between folders.

    Args:
        what: is looked for, for the message.
        exclude: resolved folders that are left out; `top` is not.
        leave_out: whether a folder below `top` is left out with all that is in it.

    Raises:
        UsageError: a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UsageError(f"folder {error.filename or top}: {error.strerror or error}; {what} in it would be missed")

    seen: set[Path] = set()
    for folder, folders, files in os.walk(top, onerror=refuse, followlinks=True):
        real = Path(folder).resolve()
        # A link back up, a folder that was here already, or one that is left out.
        if real in seen or (seen and (real in exclude or leave_out(Path(folder)))):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_stray(name))
        inside = Path(folder).relative_to(top).as_posix()
        start = "" if inside == "." else f"{inside}/"
        yield from [f"{start}{name}" for name in sorted(files) if not is_stray(name)]

"""Ids of images: relative paths that every file system and every text file can hold, and lists of them.

Output files are named after ids, so an id must not lead out of its folder on any system, a copy of the run on another
one included, and must be text. A file name that is no such id (bytes that are not UTF-8, as old archives have them, a
backslash, a drive, a device's name) is written with percent signs, like an address of the web: `caf%E9`. Every other
name stays as it is, a percent sign in it too.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tagclip.errors import UsageError
from tagclip.text_files import read_lines

# Names that Windows gives to devices, whatever follows their first dot.
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"}
)
_DRIVE = re.compile(r"^.:")


def safe_id(path: str) -> str:
    """A relative path with "/" between its folders as an id: the path itself, or percent-escaped; see the module.

    `original_name` of an escaped id is the path again.
    """
    parts = path.split("/")
    if all(_problem(part) is None for part in parts):
        return path
    return "/".join(_escaped(part) for part in parts)


def escaped_id(path: str) -> str:
    """The escaped form of any path, also of one that is an id as it is."""
    return "/".join(_escaped(part) for part in path.split("/"))


def original_name(text: str) -> str:
    """The path that an escaped id was made of, as `os.fsdecode` gives it.

    Text that was not escaped may hold percent signs of its own: look for a file of the text itself first.
    """
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def check_id(text: str, place: str) -> None:
    """Refuse an id that would lead out of its folder, or cannot be written as text, here or on another system.

    Args:
        place: where it stands, for the message.

    Raises:
        UsageError: empty or absolute, "..", a backslash, a drive, the name of a device, or half a character.
    """
    parts = [part for part in text.split("/") if part not in ("", ".")]
    problem = "empty or absolute" if not parts or text.startswith("/") else None
    problem = problem or next(filter(None, map(_problem, parts)), None)
    if problem:
        raise UsageError(f"{place}: id {text!r} is not a path inside a folder ({problem}); files are named after it")


def read_ids(path: Path, known: Container[str] = frozenset(), what: str = "list") -> list[str]:
    """The id at the start of each line; empty lines and those that begin with # are left out.

    Args:
        known: ids that there are. An id may hold blanks: the whole line is taken if it is known, or ends at a tab,
            else the line's first word.

    Raises:
        UsageError: no such file, not text, no id, an id twice, or one that leads out of its folder.
    """
    ids: dict[str, int] = {}
    for number, line in list_lines(path, what):
        candidates = line_candidates(line)
        name = next((text for text in candidates if text in known), candidates[-1])
        place = f"{what} {path}, line {number}"
        check_id(name, place)
        if name in ids:
            raise UsageError(f"{place}: {name!r} is there already, line {ids[name]}; remove one")
        ids[name] = number
    if not ids:
        raise UsageError(f"{what} {path}: nothing in it; write one id per line")
    return list(ids)


def list_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """Number and text of a list's lines, without empty ones, comments and blanks around; a tab at the end stays."""
    for number, line in read_lines(path, what):
        text = line.lstrip().rstrip(" ")
        if text and not text.startswith("#"):
            yield number, text


def line_candidates(line: str) -> list[str]:
    """What may be the id or path at the start of a list's line: all of it, as names may hold blanks, or its first word,
    which it is if there is no such image. A tab ends an id for certain.
    """
    if "\t" in line:
        return [line.split("\t", 1)[0].strip()]
    return list(dict.fromkeys((line, line.split()[0])))


def _problem(part: str) -> str | None:
    """What keeps one folder or file name of a path from being part of an id."""
    if not part.strip(" ."):
        return "a part of dots or blanks alone"  # Windows drops blanks at the end: ".. " is ".."
    if "\\" in part or "\0" in part:
        return "a backslash or a null character"
    if _DRIVE.match(part):
        return "a drive"
    if part.partition(".")[0].rstrip().lower() in DEVICES:
        return "the name of a device on Windows"
    if any(map(_is_half, part)):
        return "bytes that are not UTF-8"
    return None


def _escaped(part: str) -> str:
    escaped = "".join(_percent(c) if c in "%\\:\0" or _is_half(c) else c for c in part)
    # A device's name, and dots, are something else as soon as one letter of them differs.
    return escaped if not part or _problem(escaped) is None else _percent(part[0]) + escaped[1:]


def _percent(character: str) -> str:
    escape = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", escape))


def _is_half(character: str) -> bool:
    """Whether it is half of a surrogate pair: how Python shows a byte of a file name that is not UTF-8."""
    return "\ud800" <= character <= "\udfff"

"""Ids of images: relative paths that every file system and every text file can hold, and lists of them.

Output files are named after ids, so an id must not lead out of its folder on any system, a copy of the run on another
one included, and must be text. A file name that is no such id (bytes that are not UTF-8, as old archives have them, a
backslash, a drive, a device's name) is written with percent signs, like an address of the web: `caf%E9`. Every other
name stays as it is, a percent sign in it too.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes

from tagclip.errors import UsageError
from tagclip.image_formats import IMAGE_SUFFIXES
from tagclip.text_files import read_lines

# Names that Windows gives to devices, whatever follows their first dot.
DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"}
)
_DRIVE = re.compile(r"^.:")
# What a line of text cannot hold as it is: blanks at the ends, a comment or quote at the start, ends of lines.
_AWKWARD = re.compile(r"^[\s#\"\ufeff]|\s$|[\x00-\x1f\x7f\x85\u2028\u2029]")


# Relative paths that are ids as they are, told at once: letters, digits and a few signs, no part a device's name.
_PART = (
    r"(?!(?:[Cc][Oo][Nn]|[Pp][Rr][Nn]|[Aa][Uu][Xx]|[Nn][Uu][Ll]|[Cc][Oo][Mm]\d|[Ll][Pp][Tt]\d) *(?:\.|/|\Z))"
    r"[A-Za-z0-9_-][A-Za-z0-9_.\- ]*"
)
_PLAIN = re.compile(f"{_PART}(?:/{_PART})*")


def are_plain(paths: Iterable[str]) -> bool:
    """Whether `is_plain` holds for all of very many paths."""
    return all(map(_PLAIN.fullmatch, paths))


def is_plain(path: str) -> bool:
    """Whether a relative path is an id as it is, by a quick look; those that are not may be ids all the same."""
    return _PLAIN.fullmatch(path) is not None


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


def member_problem(name: str) -> str | None:
    """What keeps a name in an archive, a table or a store from being a relative path; None if it is one.

    Names that only some system cannot hold (a device's name, bytes that are not UTF-8) are no problem: `safe_id`
    escapes them.
    """
    parts = name.split("/")
    if not name or name.startswith("/"):
        return "empty or absolute"
    if "\\" in name or "\0" in name:
        return "a backslash or a null character"
    if any(not part.strip(" .") for part in parts):
        return "a part that is empty, or of dots or blanks alone"
    if _DRIVE.match(name):
        return "a drive"
    return None


def without_suffix(relative: str) -> str:
    """A relative path without the suffix of an image; any other suffix belongs to the name."""
    path = PurePosixPath(relative)
    return path.with_suffix("").as_posix() if path.suffix.lower() in IMAGE_SUFFIXES else relative


def distinct_ids(relatives: Iterable[str]) -> dict[str, str]:
    """Relative path -> id: without suffix, but with it where two paths differ in nothing else.

    Args:
        relatives: paths with suffixes, "/" between folders, each once.
    """
    ids = {relative: safe_id(without_suffix(relative)) for relative in relatives}
    for distinct in (safe_id, escaped_id):  # the second for a name that looks like the escaped form of another one
        while True:
            counts = Counter(ids.values())
            shared = [name for name, id_ in ids.items() if counts[id_] > 1 and id_ != distinct(name)]
            if not shared:
                break
            ids.update({name: distinct(name) for name in shared})
    return ids


def read_ids(path: Path, known: Container[str] = frozenset(), what: str = "list") -> list[str]:
    """The ids of a list, in its order: one id or path of an image per line.

    An id ends at the first tab. Without a tab, the whole line is the id if there is an image of that name, else its
    first word (what follows may be labels, as in VOC's lists; where nothing is known of either, it is the whole line
    unless only numbers follow the first word). An id in double quotes is read as a JSON string (`id_text` writes it so
    where a line could not hold it). Empty lines and those that begin with # are left out.

    Args:
        known: ids that there are. They are found under other spellings, too: with the suffix of an image, with the
            backslashes of Windows, with composed or decomposed accents, or as the name of the file where that is no id.
        what: what messages call the list.

    Raises:
        UsageError: no such file, not text, no id, an id twice, or one that leads out of its folder.
    """
    ids: dict[str, int] = {}
    for number, line in list_lines(path, what):
        place = f"{what} {path}, line {number}"
        name = _known_id(line_candidates(line), known)
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
    which it is if there is no such image. A tab, or a quote at both ends, ends an id for certain.
    """
    name, _, is_certain = split_line(line)
    return [name] if is_certain else list(dict.fromkeys((name, name.split()[0])))


def split_line(line: str) -> tuple[str, str, bool]:
    """Where the id of a line ends: at the end of a JSON string in double quotes, at a tab, or else it is not known.

    Returns:
        (id, rest, True), or (line, "", False) where nothing marks the end of the id; without blanks at the ends.
    """
    line = line.strip(" ")
    if line.startswith('"'):
        try:
            name, end = json.JSONDecoder().raw_decode(line)
        except ValueError:
            end = 0
        if end and (end == len(line) or line[end] in " \t"):
            return name, line[end:].strip(), True
    name, tab, rest = line.partition("\t")
    return name.strip(), rest.strip(), bool(tab)


def id_text(name: str) -> str:
    """An id as it begins a line of text, which `split_line` reads back.

    It stands there as it is, with a tab behind it if it has blanks, or, where no line could hold it, in quotes.
    """
    if _AWKWARD.search(name):
        return json.dumps(name)
    return name if len(name.split()) == 1 else f"{name}\t"


def _known_id(candidates: list[str], known: Container[str]) -> str:
    for candidate in candidates:
        for spelling in _spellings(candidate):
            if spelling in known:
                return spelling
    whole, first = candidates[0], candidates[-1]
    labels_follow = all(word.lstrip("+-").isdigit() for word in whole.split()[1:])
    return first if labels_follow else whole


def _spellings(text: str) -> Iterator[str]:
    for path in dict.fromkeys((text, PurePosixPath(text.replace("\\", "/")).as_posix())):
        for name in dict.fromkeys((path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))):
            yield name
            yield without_suffix(name)
    for name in (text, without_suffix(text)):
        yield safe_id(name)
        yield escaped_id(name)


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

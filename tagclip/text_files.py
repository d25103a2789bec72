"""The one reader of text files that users write (lists of ids, class names, tags), and JSON that any file can hold."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tagclip.errors import UsageError

_HALF = re.compile(r"[\ud800-\udfff]")


def read_text(path: Path, what: str = "", *, error: type[UsageError] = UsageError) -> str:
    r"""A whole text file, in UTF-8 with or without a byte order mark, or in UTF-16 with one; lines end with \n.

    Args:
        what: the file's part in messages: "image list".
        error: what is raised.

    Raises:
        UsageError, or what `error` says: no such file, not text, or in another encoding.
    """
    with _opened(path, what, error) as stream:
        return stream.read()


def read_lines(path: Path, what: str = "", *, error: type[UsageError] = UsageError) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line without its end; see `read_text`. Reads as it goes."""
    with _opened(path, what, error) as stream:
        for number, line in enumerate(stream, start=1):
            yield number, line.rstrip("\n")


@contextmanager
def _opened(path: Path, what: str, error: type[UsageError]) -> Iterator[TextIO]:
    name = f"{what} {path}".strip()
    try:
        with path.open(encoding=_encoding(path)) as stream:  # \r\n and \r become \n
            yield stream
    except UnicodeError:
        raise error(f"{name}: not a text file in UTF-8; save it as UTF-8") from None
    except OSError as problem:
        raise error(f"{name}: {problem.strerror or problem}") from None


def _encoding(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(2)
    # Windows' editors and shells write UTF-16, always with its mark.
    return "utf-16" if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, or brackets are nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that a person can read and UTF-8 can hold: names of files that are not UTF-8 are escaped, and only they."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _HALF.sub(lambda match: f"\\u{ord(match[0]):04x}", text)

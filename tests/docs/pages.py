"""Commands in the pages: what the `bash` blocks hold, and how the command line sees them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(?:<!-- needs: (?P<needs>\w+) -->\n\s*)?```bash\n(?P<text>.*?)```", re.DOTALL)
REASONS = {"install", "long", "data"}


@dataclass(frozen=True)
class Command:
    """One command of a page.

    Attributes:
        page: relative to the repository.
        words: the command, without variables before it and comments behind it.
        needs: why it is not run, "" if it is.
    """

    page: str
    words: tuple[str, ...]
    needs: str = ""

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)[:60]}"


def commands(page: Path) -> Iterator[Command]:
    """Commands of all `bash` blocks of a page, in order."""
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        text = block["text"].replace("\\\n", " ")
        for line in text.splitlines():
            for words in _split(shlex.split(line, comments=True)):
                yield Command(page.relative_to(ROOT).as_posix(), words, block["needs"] or "")


def all_commands() -> list[Command]:
    """Of all pages."""
    return [command for page in PAGES for command in commands(page)]


def _split(words: list[str]) -> Iterator[tuple[str, ...]]:
    """The commands of a line, apart at `&&`, without `NAME=VALUE` before them."""
    part: list[str] = []
    for word in [*words, "&&"]:
        if word == "&&":
            if part:
                yield tuple(part)
            part = []
        elif part or not re.fullmatch(r"[A-Z_]+=.*", word):
            part.append(word)


def tagclip_words(words: tuple[str, ...]) -> list[str] | None:
    """The words behind `tagclip` that a command comes to, or None if it runs something else."""
    if words[0] == "tagclip":
        return list(words[1:])
    if words[0] in ("python", "python3"):
        words = words[1:]
    match = re.fullmatch(r"tools/(\w+)\.py", words[0])
    subcommand = script_words(match[1]) if match else ()
    return [*subcommand, *words[1:]] if subcommand else None


@cache
def script_words(name: str) -> tuple[str, ...]:
    """The subcommand that a script in `tools` runs; empty for one that does something else."""
    text = (ROOT / "tools" / f"{name}.py").read_text(encoding="utf-8")
    found = re.search(r"main\(\[([^*\]]*)\*sys\.argv\[1:\]\]\)", text)
    return tuple(re.findall(r'"([^"]+)"', found[1])) if found else ()

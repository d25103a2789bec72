"""Subcommands of `tagclip`, run in this process."""

from collections.abc import Callable, Sequence
from pathlib import Path

from wsss.cli.main import execute

TOOLS = Path(__file__).parents[2] / "tools"


def command(*words: str) -> Callable[[Sequence[str]], int]:
    """A function that runs `tagclip WORDS ...` with the arguments that it is given, and returns the exit code."""
    return lambda arguments: execute([*words, *arguments])

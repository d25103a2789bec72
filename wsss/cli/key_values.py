"""`KEY=VALUE` of the command line as Python values, read by a grammar of its own: nothing is evaluated.

A value is a number, `True` or `False`, `None`, a list `[1, 2]`, a tuple `(1, 2)`, a list without brackets `1,2`, a text
in quotes, or, if it is nothing of that, text as it stands.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

KEY = re.compile(r"\w+(\.\w+)*")
INTEGER = re.compile(r"[+-]?[0-9]+")
REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(inf|nan)", re.IGNORECASE)
WORDS = {"true": True, "false": False}
CLOSING = {"(": ")", "[": "]"}
DEEPEST = 20  # brackets in brackets


def key_value(text: str) -> tuple[str, Any]:
    """argparse type of `KEY=VALUE`: the dotted key and the value.

    Raises:
        argparse.ArgumentTypeError: no `=`, a key that is no dotted name, or a value whose brackets or quotes are open.
    """
    key, equals, value = text.partition("=")
    if not equals or not KEY.fullmatch(key):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE, like masks.crf.iterations=5")
    try:
        return key, parse_value(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def parse_value(text: str) -> Any:
    """The value that a text stands for.

    Raises:
        ValueError: it is empty, or brackets or quotes do not close.
    """
    reader = _Reader(text)
    items, commas = reader.items("")
    if not items:
        raise ValueError("a value is missing; write '' for an empty text")
    return items if commas else items[0]


class _Reader:
    """Reads a text from left to right."""

    def __init__(self, text: str):
        self.text, self.at, self.depth = text, 0, 0

    def items(self, closing: str) -> tuple[list[Any], int]:
        """Values up to the closing bracket (the end of the text for ""), and how many commas stood between them."""
        found: list[Any] = []
        commas = 0
        while True:
            self._skip_blanks()
            if self._peek() == closing:
                self.at += 1
                return found, commas
            found.append(self._item(closing))
            self._skip_blanks()
            if self._peek() == ",":
                self.at += 1
                commas += 1
            elif self._peek() != closing:
                raise ValueError(f"{closing} is missing" if not self._peek() else f"{self._peek()} is out of place")

    def _item(self, closing: str) -> Any:
        first = self._peek()
        if first in CLOSING:
            self.at += 1
            self.depth += 1
            if self.depth > DEEPEST:
                raise ValueError(f"brackets are nested more than {DEEPEST} deep")
            values, _ = self.items(CLOSING[first])
            self.depth -= 1
            return tuple(values) if first == "(" else values
        if first in ("'", '"'):
            end = self.text.find(first, self.at + 1)
            if end < 0:
                raise ValueError(f"the quote {first} does not close")
            quoted, self.at = self.text[self.at + 1 : end], end + 1
            return quoted
        return _scalar(self._word(closing))

    def _word(self, closing: str) -> str:
        """Text up to a comma or the closing bracket; brackets inside it must close."""
        start = self.at
        inside: list[str] = []
        while character := self._peek():
            if not inside and character in {",", closing}:
                break
            if character in CLOSING:
                inside.append(CLOSING[character])
            elif character in CLOSING.values() and (not inside or inside.pop() != character):
                raise ValueError(f"{character} closes nothing")
            self.at += 1
        if inside:
            raise ValueError(f"{inside[-1]} is missing")
        word = self.text[start : self.at].strip()
        if not word:
            raise ValueError("a value is missing between commas")
        return word

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip_blanks(self) -> None:
        while self._peek().isspace():
            self.at += 1


def _scalar(word: str) -> Any:
    if INTEGER.fullmatch(word):
        return int(word)
    if REAL.fullmatch(word):
        return float(word)
    if word == "None":
        return None
    return WORDS.get(word.lower(), word)

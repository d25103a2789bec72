"""The argument parser of `tagclip`: help that begins with an example, and mistakes told in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

UNNAMED = "unrecognized arguments: "  # argparse's words
Handler = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose help begins with an example and whose errors are one line.

    Args:
        example: a whole command line; None shows argparse's usage instead.
        refused: options that other subcommands have -> why this one has not.
        first: option that a first word without an option in front stands for: `tagclip review runs/mine`.
    """

    def __init__(
        self,
        *,
        example: str | None = None,
        refused: dict[str, str] | None = None,
        first: str | None = None,
        **settings: Any,
    ):
        own: dict[str, Any] = {"formatter_class": _Formatter, "allow_abbrev": False, "add_help": False}
        super().__init__(**{**own, **settings})
        self.example, self.refused, self.first = example, refused or {}, first
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)

    def format_help(self) -> str:
        """Example, what the command does, and its options by group."""
        formatter = self._get_formatter()
        head = f"Example: {self.example}\n\n" if self.example else f"Usage: {self.prog} SUBCOMMAND [OPTION ...]\n\n"
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return head + formatter.format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but an unknown option is told before a missing one."""
        given = list(sys.argv[1:] if args is None else args)
        if self.first is not None and given and not given[0].startswith("-") and self.first not in given:
            given = [self.first, *given]
        if self._subparsers is None:
            for text in given[: given.index("--")] if "--" in given else given:
                flag = text.partition("=")[0]
                if flag.startswith("--") and " " not in flag and flag not in self._option_string_actions:
                    self.error(self._unknown(flag))
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the process with one line and exit code 2."""
        if message.startswith(UNNAMED):
            message = f"{message.removeprefix(UNNAMED)}: no option stands before it; name it, as in --config and --run"
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")

    def _unknown(self, flag: str) -> str:
        from difflib import get_close_matches

        from wsss.cli.options import RENAMED

        if flag in self.refused:
            return f"{flag}: {self.refused[flag]}"
        if flag in RENAMED:
            return f"{flag}: this option is now called {RENAMED[flag]}"
        near = get_close_matches(flag, self._option_string_actions, 1)
        return f"{flag}: no such option" + (f"; did you mean {near[0]}?" if near else "")


class _Formatter(argparse.HelpFormatter):
    """Options in a narrow column, and a text's own line breaks kept."""

    def __init__(self, prog: str):
        from shutil import get_terminal_size

        super().__init__(prog, max_help_position=32, width=max(60, min(get_terminal_size().columns, 120) - 2))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(super(_Formatter, self)._fill_text(line, width, indent) for line in text.splitlines())

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        text = super()._format_args(action, default_metavar)
        first, blank, rest = text.partition(" ")
        return f"{first} ..." if action.nargs == "+" and blank and rest.startswith("[") else text


def add_command(
    commands: Any,
    name: str,
    *,
    help: str,
    example: str,
    run: Handler,
    text: str = "",
    refused: dict[str, str] | None = None,
    first: str | None = None,
) -> Parser:
    """A subcommand's parser; its handler is in the parsed arguments as `handler`.

    Args:
        commands: what `add_subparsers` returned.
        help: one sentence, for the list of subcommands and for the subcommand's own help.
        example: a command line without the leading "tagclip".
        run: takes the parsed arguments, returns the exit code.
        text: further sentences.
        refused, first: see `Parser`.
    """
    parser = commands.add_parser(
        name, help=help, description=f"{help}\n{text}".rstrip(), example=f"tagclip {example}", refused=refused,
        first=first,
    )  # fmt: skip
    parser.set_defaults(handler=run)
    return parser


def add_family(commands: Any, name: str, *, help: str, metavar: str = "WHAT") -> Any:
    """A subcommand that has subcommands of its own; returns what `add_command` takes."""
    parser = commands.add_parser(name, help=help, description=help)
    return parser.add_subparsers(required=True, metavar=metavar, title="subcommands", parser_class=Parser)

#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""The command `tagclip`. Nothing heavy is imported before a subcommand runs: help and completion answer at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from wsss.cli import (
    ablate,
    benchmark,
    compare,
    completion,
    configs,
    demo,
    diagnose,
    doctor,
    evaluate,
    export_model,
    mask,
    remask,
    run,
    segment,
    show,
    tag,
    train,
)
from wsss.cli.console import run_main
from wsss.cli.parser import Parser

DISTRIBUTION = "tagclip-wsss"
COMMANDS = (
    run, tag, mask, remask, show, train, segment, export_model, evaluate, compare, ablate, benchmark, diagnose, demo,
    configs, doctor, completion,
)  # fmt: skip


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="tagclip",
        description="Image tags, pseudo masks and a trained segmentor from class names alone, without annotation.",
        epilog="tagclip SUBCOMMAND --help shows an example and all options of a subcommand.",
    )
    parser.add_argument("--version", action=_Version, help="Show the version")
    commands = parser.add_subparsers(metavar="SUBCOMMAND", title="subcommands", dest="subcommand")
    for module in COMMANDS:
        module.register(commands)
    return parser


def execute(argv: Sequence[str] | None = None) -> int:
    """Parses a command line and runs it.

    Args:
        argv: without the program's name; None takes the process's.

    Returns:
        The exit code.

    Raises:
        TagclipError: what went wrong, in one line.
        SystemExit: after help, or for a command line that cannot be parsed (code 2).
    """
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    args = parser.parse_args(argv)
    if args.subcommand is None:
        parser.print_help()
        return 2
    del args.subcommand
    from tagclip.requirements import explained_imports

    with explained_imports():
        return args.handler(args)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command line and ends the process with its exit code."""
    run_main(execute, argv)


class _Version(argparse.Action):
    """Looks the installed version up when it is asked for: that takes longer than all the rest of the parser."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None):
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"tagclip {installed_version()}")
        parser.exit()


def installed_version() -> str:
    """Version of the installed package, or that of this clone where nothing is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown (not installed)"


if __name__ == "__main__":
    main()

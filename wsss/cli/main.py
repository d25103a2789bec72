#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""The command `tagclip`. Nothing heavy is imported before a subcommand runs: help and completion answer at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from tagclip.errors import UsageError
from tagclip.version import __version__
from wsss.cli import (
    ablate,
    benchmark,
    calibrate,
    compare,
    completion,
    configs,
    demo,
    diagnose,
    doctor,
    evaluate,
    export,
    export_model,
    mask,
    merge,
    remask,
    reproduce,
    review,
    run,
    segment,
    show,
    tag,
    train,
    train_tagger,
)
from wsss.cli.console import run_main
from wsss.cli.parser import Parser

COMMANDS = (
    run, tag, mask, merge, remask, calibrate, show, review, export, train, train_tagger, segment, export_model,
    evaluate, compare, ablate, reproduce, benchmark, diagnose, demo, configs, doctor, completion,
)  # fmt: skip


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="tagclip",
        description="Image tags, pseudo masks and a trained segmentor from class names alone, without annotation.",
        epilog="tagclip SUBCOMMAND --help shows an example and all options of a subcommand.",
    )
    parser.add_argument("--version", action="version", version=f"tagclip {__version__}", help="Show the version")
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
    out = getattr(args, "out", None)
    if isinstance(out, str) and args.subcommand not in ("run", "tag", "mask"):
        raise UsageError(f"--out {out}: `tagclip {args.subcommand}` writes to a folder, not to an address")
    del args.subcommand
    from tagclip.requirements import explained_imports

    with explained_imports():
        return args.handler(args)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command line and ends the process with its exit code."""
    run_main(execute, argv)


if __name__ == "__main__":
    main()

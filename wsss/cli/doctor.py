"""`tagclip doctor`: what this machine can do, and one line of advice for each thing that is not as it should be."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from wsss.cli.options import pick
from wsss.cli.parser import add_command
from wsss.cli.screen import Output, Table


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "doctor", run=doctor,
        help="Check this machine: versions, devices, memory, cores, cached weights, mmseg, CRF, OpenMP.",
        text="It takes some seconds: it imports what the other subcommands need.",
        example="doctor",
    )  # fmt: skip
    pick(parser, "json", "quiet")


def doctor(args: argparse.Namespace) -> int:
    """Checks everything and shows what was found; with --quiet only what needs attention."""
    from wsss.cli.health import all_checks

    output, checks = Output.of(args), list(all_checks())
    advised = [check for check in checks if check.advice]
    shown = advised if args.quiet else checks
    if shown:
        output.show(Table(("check", "found"), [(check.name, check.value) for check in shown], left=True))
    for check in advised:
        output.show(f"{check.name}: {check.advice}")
    if not advised:
        output.show("everything is as it should be")
    output.figures({"checks": [asdict(check) for check in checks]})
    return 0

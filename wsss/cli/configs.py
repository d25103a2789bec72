"""`tagclip configs`: the configs that ship with the package."""

from __future__ import annotations

import argparse
from typing import Any

from wsss.cli.options import pick
from wsss.cli.parser import add_command
from wsss.cli.screen import Output, Table
from wsss.configs import config_title, list_configs


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "configs", run=configs,
        help="List the configs that ship with the package; --config takes their names.",
        example="configs",
    )  # fmt: skip
    pick(parser, "json", "quiet")


def configs(args: argparse.Namespace) -> int:
    """Lists names and titles."""
    rows = [(name, config_title(name)) for name in list_configs()]
    output = Output.of(args)
    output.show(Table(("config", "what it is for"), rows, left=True))
    output.figures(dict(rows))
    return 0

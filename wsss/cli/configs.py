"""`tagclip configs`: the configs that ship with the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from wsss.cli.options import pick
from wsss.cli.parser import add_command
from wsss.cli.screen import Output, Table

FOLDER = Path(__file__).parents[2] / "configs"


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


def list_configs() -> list[str]:
    names = (path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.py"))
    return sorted(name for name in names if "/_" not in name)


def config_title(name: str) -> str:
    return find_config(name).read_text(encoding="utf-8").split("\n", 1)[0].strip('#" ')


def find_config(name: str) -> Path:
    path = Path(name)
    return path if path.is_file() or path.suffix else FOLDER / f"{name}.py"

"""`tagclip mask`: class maps and masks of images whose tags are known."""

from __future__ import annotations

import argparse
from typing import Any

from tagclip.errors import UsageError
from wsss.cli import making
from wsss.cli.console import passive_threads, setup_logging
from wsss.cli.options import MODEL, TAG_RULE, pick, settings_of
from wsss.cli.parser import add_command
from wsss.cli.screen import Output

NO_RULE = "the tags come from --tags, so a rule for tags has no effect; leave it out, or use `tagclip run`"


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "mask", run=mask,
        help="Make class maps and masks of images whose tags are in a file.",
        text="The tags are those of an earlier run, a published list, or the truth of a data set.",
        example="mask --tags runs/tags --images photos --classes cat,dog --out runs/masks",
        refused={f"--{name}": NO_RULE for name in (*TAG_RULE, "no-at-least-one", "keep-scores")},
    )  # fmt: skip
    pick(
        parser, "tags", "tag-ids", *making.OPTIONS, *MODEL,
        required=("tags",), several=("method",), notes={**making.NOTES, "tag-ids": "default: auto"},
    )  # fmt: skip


def mask(args: argparse.Namespace) -> int:
    """Class maps and masks."""
    passive_threads()
    setup_logging(args.quiet)
    settings = settings_of(args.set)
    if ignored := [key for key in settings if key.split(".")[:2] == ["tagging", "rule"]]:
        raise UsageError(f"--set {ignored[0]}: {NO_RULE}")
    output = Output.of(args)
    _, figures = making.make_masks(args, settings, output)
    output.figures(figures)
    return 0

"""`tagclip run`: from images and class names to tags, class maps and masks, and on to a trained model."""

from __future__ import annotations

import argparse
from typing import Any

from tagclip.errors import UsageError
from wsss.cli import making
from wsss.cli.console import passive_threads, setup_logging
from wsss.cli.engine import ENGINE, ENGINE_NOTES
from wsss.cli.options import MODEL, TAG_RULE, pick, settings_of
from wsss.cli.parser import add_command
from wsss.cli.run_options import TRAINING, given_training_options, split_settings
from wsss.cli.screen import Output
from wsss.cli.staging import staged
from wsss.configs import find_config


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "run", run=run,
        help="Label a folder of images: tags, class maps and masks from class names alone.",
        text="The same command resumes a run that was interrupted. --train then trains a DeepLab model; its settings "
        "are --set train.KEY=VALUE.",
        example="run --images photos --classes cat,dog --out runs/mine",
    )  # fmt: skip
    pick(
        parser, *making.OPTIONS, *TAG_RULE, *MODEL, *ENGINE, "train", *TRAINING,
        several=("method",), defaults={"engine": "local"}, notes={
            **making.NOTES, **ENGINE_NOTES, "rounds": "default: the config's",
            "model": "or a tagger of `tagclip train-tagger`, for the tags",
        },
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Tags, class maps and masks, then the training if there is one."""
    passive_threads()
    setup_logging(args.quiet)
    settings, training = split_settings(settings_of(args.set))
    if args.train is None and (given := given_training_options(args) + ["--set train.*"] * bool(training)):
        raise UsageError(f"{', '.join(given)}: of a training, but no --train CONFIG was given")
    if args.train is not None and args.shard is not None:
        raise UsageError("--train: a shard is a share of the run; train when it is merged: tagclip train --run RUN")
    if args.train is not None:
        find_config(args.train, option="--train")  # now, rather than after hours of work
    output = Output.of(args)
    with staged(args) as mirror:
        out, figures = making.make_masks(args, settings, output, mirror=mirror)
    if args.train is not None and not args.dry_run:
        from wsss.cli.train import fit

        figures["training"] = fit(args, output, config=args.train, run=out, options=training)
    output.figures(figures)
    return 0

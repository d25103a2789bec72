"""Command-line options of a training, shared by `tools/train_segmentor.py` and `tools/pipeline.py --train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tagclip.errors import UsageError
from wsss.cli.console import not_negative, positive

TRAINING_OPTIONS = ("val", "ground_truth", "iterations", "rounds", "backbone_weights", "seed", "amp")


def add_training_options(parser: argparse._ActionsContainer) -> None:
    """Options that mean the same in both tools. Options not given keep the config file's values."""
    add = parser.add_argument
    add("--val", type=Path, metavar="DIR", help="VOC-layout folder (or run folder) with true masks to validate on")
    add(
        "--ground-truth",
        type=Path,
        nargs="?",
        const="",
        metavar="DIR",
        help="train a second model on true masks of the same images, found here (default: the --val folder)",
    )
    add("--iterations", type=positive, metavar="N", help="length; schedule and intervals are scaled with it")
    add("--rounds", type=not_negative, metavar="N", help="rounds of self-training (default: the config's)")
    add("--backbone-weights", metavar="FILE|URL|none", help="start of the backbone (default: the config's, a download)")
    add("--seed", type=not_negative, metavar="N", help="of initialisation and data order of the training")
    add("--amp", action="store_true", help="train in mixed precision (accelerators)")


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """The parsed options as fields of `wsss.segmentation.train_settings.TrainRequest`.

    Raises:
        UsageError: --ground-truth without a folder and without --val.
    """
    truth = args.ground_truth
    if truth is not None and str(truth) in ("", "."):
        if args.val is None:
            raise UsageError("--ground-truth without a folder takes the --val folder, but there is none")
        truth = args.val
    return {
        "val": args.val, "ground_truth": truth, "iterations": args.iterations, "rounds": args.rounds,
        "pretrained": args.backbone_weights, "seed": args.seed, "amp": args.amp,
    }  # fmt: skip


def given_options(args: argparse.Namespace) -> list[str]:
    """The flags of `add_training_options` that the command line holds."""
    return [f"--{name.replace('_', '-')}" for name in TRAINING_OPTIONS if getattr(args, name) not in (None, False)]

"""`tagclip train`: DeepLab on the masks of a run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsss.cli.console import load_mmseg, setup_logging
from wsss.cli.options import pick, settings_of
from wsss.cli.parser import add_command
from wsss.cli.run_options import TRAINING, training_fields, training_settings
from wsss.cli.screen import SCREEN, Output
from wsss.configs import find_config


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "train", run=train,
        help="Train DeepLab on the masks of a run folder or a VOC-layout folder.",
        text="The same command resumes a training that was interrupted. Settings are --set train.KEY=VALUE.",
        example="train --config segmentation/deeplabv3plus_r18_custom --run runs/mine --val VOC2012",
    )  # fmt: skip
    pick(
        parser, "config", "run", "image-root", "out", "classes", "list", "masks", "val-list", "set", *TRAINING,
        "load-from", "launcher", "headers-only", "overwrite", "json", "quiet",
        required=("config", "run"), defaults={"launcher": "none"},
        notes={"out": "default: RUN/segmentation", "classes": "default: the config's, else the run's",
               "set": "train.KEY=VALUE", "rounds": "default: the config's"},
    )  # fmt: skip
    parser.add_argument("--local-rank", type=int, default=0, help=argparse.SUPPRESS)  # given by PyTorch's launcher


def train(args: argparse.Namespace) -> int:
    """Trains and shows the summary."""
    setup_logging(args.quiet)
    output = Output.of(args)
    options = training_settings(settings_of(args.set))
    found = fit(
        args, output, config=args.config, run=args.run, options=options, work_dir=args.out, vocabulary=args.classes,
        train_list=args.list, val_list=args.val_list, mask_dir=args.masks, image_root=args.image_root,
        load_from=args.load_from,
        launcher=args.launcher, headers_only=args.headers_only,
    )  # fmt: skip
    output.figures(found)
    return 0


def fit(
    args: argparse.Namespace,
    output: Output,
    *,
    config: str,
    run: Path,
    options: Mapping[str, Any],
    vocabulary: str | None = None,
    headers_only: bool = False,
    **request: Any,
) -> dict[str, Any]:
    """A training, of `tagclip train` or after `tagclip run`; shows the summary.

    Args:
        args: holds the options `TRAINING`, `overwrite` and `quiet`.
        config: name or file. run: folder with the masks. options: settings written over the config.
        vocabulary: classes, as `--classes` has them. headers_only: check no ids of the masks.
        request: further fields of `TrainRequest`.

    Returns:
        The summary, JSON-ready.
    """
    find_config(config)  # before mmseg is loaded, which takes seconds
    load_mmseg()
    from mmengine.dist import is_main_process

    from wsss.segmentation.preflight import PreflightConfig
    from wsss.segmentation.train_settings import TrainRequest
    from wsss.segmentation.training import train_segmentor

    if args.quiet or args.json == SCREEN:
        options = {"log_level": "ERROR", **options}
    summary = train_segmentor(
        TrainRequest(
            config, run, options=options, overwrite=args.overwrite, preflight=PreflightConfig(ids=not headers_only),
            vocabulary=vocabulary, **training_fields(args), **request,
        )
    )  # fmt: skip
    if is_main_process():
        output.show(summary.table())
    return asdict(summary)

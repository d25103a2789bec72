"""`tagclip train-tagger`: a small classifier trained on the scores of a run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

from tagclip.errors import UsageError
from wsss.cli.console import set_threads, setup_logging
from wsss.cli.options import pick, settings_of
from wsss.cli.parser import add_command
from wsss.cli.progress import progress_bar
from wsss.cli.screen import Output

PREFIX = "tagger."  # of settings in --set
FIELDS = {
    "backbone": "backbone",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "lr": "lr",
    "amp": "amp",
    "seed": "seed",
    "align_labels": "align.enabled",
    "correct_bias": "bias.enabled",
    "second_look": "second_look.enabled",
}
CHOICES = ("align_labels", "correct_bias", "second_look")  # of which --no-... is an answer, too
logger = logging.getLogger(__name__)


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "train-tagger", run=train_tagger, first="--run",
        help="Train a small, fast tagger on the scores of a run; no true label is used.",
        text="The same command resumes a training that was interrupted. `tagclip tag --model OUT/tagger.pt` uses it.",
        example="train-tagger --run runs/tags --out runs/tagger --backbone resnet50 --weights resnet50.pth",
    )  # fmt: skip
    pick(
        parser, "run", "image-root", "out", "set", "backbone", "weights", "epochs", "batch-size", "lr", "align-labels",
        "correct-bias", "second-look", "amp", "seed", "workers", "device", "threads", "overwrite", "dry-run", "json",
        "quiet",
        required=("run",), defaults={"workers": 2},
        notes={
            "out": "default: RUN/tagger", "set": "tagger.KEY=VALUE",
            "backbone": "default: demo for a run of the demo model, else resnet50",
            "weights": "a state dict of torchvision; default: random, and the demo's own for demo",
        },
    )  # fmt: skip


def train_tagger(args: argparse.Namespace) -> int:
    """Trains the tagger."""
    setup_logging(args.quiet)
    settings = tagger_settings(args)
    set_threads(args.threads)
    from wsss.distillation.distillation_config import DistillationConfig
    from wsss.distillation.student_training import TaggerTraining

    output = Output.of(args)
    training = TaggerTraining(
        args.run, args.out or args.run / "tagger", DistillationConfig.from_dict(settings), weights=args.weights,
        image_root=args.image_root, device=args.device, workers=args.workers,
    )  # fmt: skip
    plan = training.plan
    if args.dry_run:
        output.show(plan.text())
        output.figures(dataclasses.asdict(plan))
        return 0
    logger.info(plan.text())
    if not plan.pretrained:
        logger.warning("%s: begins at random; --weights FILE gives it what it has learned elsewhere", plan.backbone)

    @contextlib.contextmanager
    def watch(total: int, done: int) -> Iterator[Callable[[int, str], None]]:
        with progress_bar(total, "training", done=done, quiet=args.quiet) as bar:

            def step(images: int, note: str) -> None:
                bar.note(note)
                bar.update(images)

            yield step

    found = training.execute(overwrite=args.overwrite, watch=watch)
    rate = f", {found.rate:.1f} images/s" if found.rate else ", complete already"
    output.show(f"{found.path}: {found.images} images, {found.epochs} epochs, divergence {found.divergence:.4f}{rate}")
    output.figures(found.to_dict())
    return 0


def tagger_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Nested fields of `DistillationConfig`; those of --set win.

    Raises:
        UsageError: a key that does not begin with `tagger.`.
    """
    given = {field: value for name, field in FIELDS.items() if (value := getattr(args, name)) not in (None, False)}
    given |= {FIELDS[name]: False for name in CHOICES if getattr(args, name) is False}
    for key, value in settings_of(args.set).items():
        if not key.startswith(PREFIX):
            raise UsageError(
                f"--set {key}: settings of this training begin with {PREFIX}; write --set {PREFIX}{key}=..."
            )
        given[key.removeprefix(PREFIX)] = value
    nested: dict[str, Any] = {}
    for key, value in given.items():
        *groups, name = key.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise UsageError(f"--set {PREFIX}{key}: no such setting")
        place[name] = value
    return nested

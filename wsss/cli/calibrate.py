"""`tagclip calibrate`: thresholds per class from the scores that a run has stored."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.errors import UsageError
from wsss.cli.console import setup_logging
from wsss.cli.options import pick
from wsss.cli.parser import add_command
from wsss.cli.screen import Output, Table

if TYPE_CHECKING:
    from tagclip.vocabulary import Vocabulary
    from wsss.evaluation.threshold_calibration import Calibration


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "calibrate", run=calibrate, first="--run",
        help="Find one threshold per class from the scores of a run, with or without labelled images.",
        text="No model is needed. Give the file to `tagclip run` or `tag` as --class-thresholds: a run in the same "
        "folder then takes its tags anew.",
        example="calibrate --run runs/mine --out thresholds.yaml",
    )  # fmt: skip
    pick(
        parser, "run", "out", "method", "prevalence", "z-threshold", "labels", "label-ids", "tag-rule", "seed",
        "overwrite", "dry-run", "json", "quiet",
        required=("run",), choices={"tag-rule": ("absolute", "relative")},
        notes={
            "method": "distribution, prevalence, zscore, class-zscore or labels; default: labels or prevalence where "
            "they are given, otherwise distribution",
            "tag-rule": "the rule that the thresholds are for; default: absolute", "label-ids": "default: auto",
            "labels": "or a run folder: its checked images", "z-threshold": "default: found in the scores",
        },
    )  # fmt: skip


def calibrate(args: argparse.Namespace) -> int:
    """Finds the thresholds, shows them and writes them."""
    setup_logging(args.quiet)
    if args.out is None and not args.dry_run:
        raise UsageError("--out: needed, a file for the thresholds (.yaml); or --dry-run to see them only")
    from wsss.evaluation.threshold_calibration import METHODS, BootstrapConfig, CalibrationRequest, calibrate_run
    from wsss.files.run_reader import RunReader

    if args.method is not None and args.method not in METHODS:
        raise UsageError(f"--method {args.method}: not one of {', '.join(METHODS)}")
    output = Output.of(args)
    if not args.dry_run and args.out.exists() and not args.overwrite:
        raise UsageError(f"--out {args.out}: is there already; choose another file, or --overwrite")
    labels = None if args.labels is None else _labels(args, RunReader(args.run).vocabulary)
    request = CalibrationRequest(
        args.method, args.tag_rule or "absolute", prevalence(args.prevalence), args.z_threshold, labels,
        bootstrap=BootstrapConfig(seed=args.seed or 0),
    )  # fmt: skip
    found = calibrate_run(args.run, request)
    show(found, output)
    if not args.dry_run:
        from wsss.files.atomic import atomic_file, disk_errors

        with disk_errors(args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(args.out, args.out.parent) as file:
            file.write(found.thresholds.text().encode())
        output.show(f"written to {args.out}; use it: tagclip run --class-thresholds {args.out} ...")
    output.figures(found.to_dict())
    return 0


def show(found: Calibration, output: Output) -> None:
    """The thresholds as a table, and what labels have said."""
    fit, own = found.fit, found.thresholds
    columns = ["class", "threshold", "images now", "then"]
    if fit is not None:
        columns += ["labelled", "interval"]
    rows = []
    for name, value in own.thresholds.items():
        row = [name, f"{value:.4f}", str(found.before[name]), str(found.after[name])]
        if fit is not None:
            low, high = fit.intervals[name]
            row += [str(fit.positives[name]), f"{low:.4f} to {high:.4f}"]
        rows.append(row)
    output.show(Table(columns, rows))
    output.show(f"method {own.notes['method']}, rule {own.rule}, scores of {found.images} images")
    if fit is not None:
        low, high = fit.unseen_interval
        unseen = "" if math.isnan(fit.unseen_f1) else (
            f", {fit.unseen_f1:.3f} on labelled images left out (95 % between {low:.3f} and {high:.3f})"
        )  # fmt: skip
        output.show(f"{fit.images} labelled images: F1 {fit.f1:.3f} on themselves{unseen}")


def prevalence(words: Sequence[str] | None) -> float | dict[str, float] | None:
    """`0.1`, or `cat=0.1 dog=0.3`.

    Raises:
        UsageError: neither.
    """
    if words is None:
        return None
    if len(words) == 1 and "=" not in words[0]:
        return _share(words[0], words[0])
    found = {}
    for word in words:
        name, equals, number = word.rpartition("=")
        if not equals or not name:
            raise UsageError(f"--prevalence {word}: neither one number nor CLASS=NUMBER")
        if name in found:
            raise UsageError(f"--prevalence {word}: {name!r} is there twice")
        found[name] = _share(number, word)
    return found


def _share(text: str, word: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UsageError(f"--prevalence {word}: not a share of images between 0 and 1")
    return value


def _labels(args: argparse.Namespace, vocabulary: Vocabulary) -> Any:
    from tagclip.labels import read_labels
    from wsss.evaluation.threshold_calibration import checked_labels

    checked = checked_labels(Path(args.labels))
    return checked if checked is not None else read_labels(args.labels, vocabulary, ids=args.label_ids or "auto")

"""`tools/evaluate.py tags`: tag files against labels, as a table, JSON and PR curves."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tagclip.errors import UsageError
from tagclip.labels import Labels, read_labels
from tagclip.metrics import TagMetrics, measure_tags
from tagclip.tag_files import TagRecord, read_tags, to_arrays
from tagclip.vocabulary import Vocabulary
from wsss.files.run_folder import run_vocabulary

logger = logging.getLogger(__name__)
ID_KINDS = ("auto", "index", "raw")


def register_tags(subparsers: argparse._SubParsersAction) -> None:
    """Adds the `tags` subcommand; its handler is in the parsed arguments as `run`."""
    parser = subparsers.add_parser("tags", help="mAP, precision, recall and F1 of image tags")
    parser.add_argument("--tags", type=Path, required=True, metavar="FILE",
                        help="tags.jsonl, a run folder, or a plain list (`id class class` a line)")
    parser.add_argument("--labels", type=Path, required=True, metavar="PATH",
                        help="plain list, folder of VOC XML files, or COCO JSON")
    parser.add_argument("--vocabulary", metavar="NAME|FILE",
                        help="class names: voc, coco, cocostuff, context, or a class file (default: the run folder's)")
    parser.add_argument("--label-ids", choices=ID_KINDS, default="auto",
                        help="numbers of a plain label list: class indices, or the data set's raw ids (cocostuff)")
    parser.add_argument("--tag-ids", choices=ID_KINDS, default="index", help="the same for a plain tag file")
    parser.add_argument("--skip-difficult", action="store_true", help="VOC XML: leave out objects marked difficult")
    parser.add_argument("--absent-classes", choices=("leave_out", "zero"), default="leave_out",
                        help="classes without positives: left out of means over classes, or counted as 0 (published)")
    parser.add_argument("--per-class", action="store_true", help="a row a class on the screen too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="write precision-recall curves here, as PNG")
    parser.set_defaults(run=evaluate_tags)


def evaluate_tags(args: argparse.Namespace) -> int:
    """Runs the subcommand; returns the exit code.

    Raises:
        UsageError: unknown vocabulary, unreadable files, classes that do not fit, or no image in common.
    """
    vocabulary = _vocabulary(args.vocabulary, args.tags)
    records = read_tags(args.tags, vocabulary, ids=args.tag_ids)
    labels = read_labels(args.labels, vocabulary, ids=args.label_ids, difficult=not args.skip_difficult)
    pairs, unlabelled = match(records, labels)
    untagged = len(labels) - len(pairs)
    if not pairs:
        raise UsageError(f"--tags {args.tags}: none of its {len(records)} images has a label in {args.labels}")
    if unlabelled or untagged:
        logger.warning("%d images have tags but no labels, %d labels but no tags: left out", unlabelled, untagged)
    tags, scores = to_arrays([record for record, _ in pairs], len(vocabulary))
    truth = np.zeros_like(tags)
    for row, (_, classes) in enumerate(pairs):
        truth[row, list(classes)] = True
    if scores is not None and np.isnan(scores).any():
        logger.warning("the tag file keeps only the best scores of an image: mAP is a lower bound")
    metrics = measure_tags(truth, tags, scores, vocabulary.names, absent=args.absent_classes)
    print(metrics.table(classes=args.per_class))
    if args.json:
        left_out = {"tagged_without_labels": unlabelled, "labelled_without_tags": untagged}
        report = {"vocabulary": vocabulary.name, **metrics.to_dict(), **left_out}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.curves:
        save_curves(truth, scores, metrics, args.curves)
    return 0


def match(records: Sequence[TagRecord], labels: Labels) -> tuple[list[tuple[TagRecord, tuple[int, ...]]], int]:
    """Records with their labels, by id, or, where no id agrees, by the last part of it; and how many have none."""
    found = [(record, labels[record.id]) for record in records if record.id in labels]
    if not found:
        names = [record.id.rsplit("/", 1)[-1] for record in records]
        short = {name.rsplit("/", 1)[-1]: classes for name, classes in labels.items()}
        if len(set(names)) == len(names) and len(short) == len(labels):
            found = [(record, short[name]) for record, name in zip(records, names, strict=True) if name in short]
    return found, len(records) - len(found)


def save_curves(truth: np.ndarray, scores: np.ndarray | None, metrics: TagMetrics, path: Path) -> None:
    """Precision against recall: a line a class and all pairs together; points where there are only decisions.

    Args:
        truth: (n, C) bool.
        scores: (n, C) float or None.
        path: of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve

    figure = Figure(figsize=(6, 6), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    if scores is not None:
        ranked = np.where(np.isnan(scores), -1, scores)
        for index in np.flatnonzero(truth.any(axis=0)):
            precision, recall, _ = precision_recall_curve(truth[:, index], ranked[:, index])
            axes.plot(recall, precision, color="0.8", linewidth=0.7, zorder=1)
        precision, recall, _ = precision_recall_curve(truth.ravel(), ranked.ravel())
        axes.plot(recall, precision, color="C0", linewidth=2, label="all pairs", zorder=3)
    shown = [row for row in metrics.classes if row.positives]
    axes.scatter([row.recall for row in shown], [row.precision for row in shown], s=12, color="0.5",
                 label="tags, a class each", zorder=2)
    axes.scatter([metrics.micro.recall], [metrics.micro.precision], s=60, color="C3", marker="x",
                 label=f"tags, micro: F1 {metrics.micro.f1:.3f}", zorder=4)
    title = f"{metrics.images} images" + ("" if metrics.mean_ap is None else f", mAP {metrics.mean_ap:.3f}")
    axes.set_title(title)
    axes.legend(loc="lower left")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))


def _vocabulary(name: str | None, tags: Path) -> Vocabulary:
    if name is not None:
        return Vocabulary.load(name)
    found = run_vocabulary(tags if tags.is_dir() else tags.parent)
    if found is None:
        names = ", ".join(Vocabulary.built_in())
        raise UsageError(f"--vocabulary: needed, as {tags} is not in a run folder: {names} or a class file")
    return found

"""Tags from a file against true tags, and precision-recall curves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tagclip.errors import UsageError
from tagclip.labels import Labels, find_labels
from tagclip.metrics import TagMetrics, measure_tags
from tagclip.tag_files import TagRecord, to_arrays
from tagclip.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TagScores:
    """Figures of a set of images, and the arrays that they come from.

    Attributes:
        metrics: the figures.
        truth: (n, C) bool. scores: (n, C) float, NaN where not stored; None where there are only tags.
        unlabelled: images with tags and no true tags, left out. untagged: the other way round.
    """

    metrics: TagMetrics
    truth: np.ndarray
    scores: np.ndarray | None
    unlabelled: int
    untagged: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        left_out = {"tagged_without_labels": self.unlabelled, "labelled_without_tags": self.untagged}
        return {**self.metrics.to_dict(), **left_out}


def score_tags(
    records: Sequence[TagRecord],
    labels: Labels,
    vocabulary: Vocabulary,
    *,
    absent: Literal["leave_out", "zero"] = "leave_out",
) -> TagScores:
    """Scores of the images that have both tags and true tags.

    Args:
        records: tags. labels: image id -> indices of the true tags.
        absent: see `measure_tags`.

    Raises:
        UsageError: no image in common.
    """
    pairs, unlabelled = match(records, labels)
    untagged = len(labels) - len(pairs)
    if not pairs:
        raise UsageError(
            f"none of the {len(records)} images with tags (first {records[0].id!r}) is among the {len(labels)} with "
            f"labels (first {next(iter(labels))!r})" if records and labels else "no image with tags and labels"
        )
    if unlabelled or untagged:
        logger.warning("%d images have tags but no labels, %d labels but no tags: left out", unlabelled, untagged)
    tags, scores = to_arrays([record for record, _ in pairs], len(vocabulary))
    truth = np.zeros_like(tags)
    for row, (_, classes) in enumerate(pairs):
        truth[row, list(classes)] = True
    if scores is not None and np.isnan(scores).any():
        logger.warning("the tag file keeps only the best scores of an image: mAP is a lower bound")
    return TagScores(measure_tags(truth, tags, scores, vocabulary.names, absent=absent), truth, scores, unlabelled,
                     untagged)  # fmt: skip


def match(records: Sequence[TagRecord], labels: Labels) -> tuple[list[tuple[TagRecord, tuple[int, ...]]], int]:
    """Records with their labels, and how many have none.

    By id (with the suffix of the file, where labelled images differ in nothing else), or, where no id agrees, by the
    last part of it.
    """
    paired = ((record, find_labels(labels, record.id, record.path)) for record in records)
    found = [(record, classes) for record, classes in paired if classes is not None]
    if not found:
        names = [record.id.rsplit("/", 1)[-1] for record in records]
        short = {name.rsplit("/", 1)[-1]: classes for name, classes in labels.items()}
        if len(set(names)) == len(names) and len(short) == len(labels):
            found = [(record, short[name]) for record, name in zip(records, names, strict=True) if name in short]
    return found, len(records) - len(found)


def save_curves(found: TagScores, path: Path) -> None:
    """Precision against recall: one line per class and one for all pairs; points where there are only decisions.

    Args:
        path: of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve

    truth, metrics = found.truth, found.metrics
    figure = Figure(figsize=(6, 6), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    if found.scores is not None:
        ranked = np.where(np.isnan(found.scores), -1, found.scores)
        for index in np.flatnonzero(truth.any(axis=0)):
            precision, recall, _ = precision_recall_curve(truth[:, index], ranked[:, index])
            axes.plot(recall, precision, color="0.8", linewidth=0.7, zorder=1)
        precision, recall, _ = precision_recall_curve(truth.ravel(), ranked.ravel())
        axes.plot(recall, precision, color="C0", linewidth=2, label="all pairs", zorder=3)
    shown = [row for row in metrics.classes if row.positives]
    axes.scatter([row.recall for row in shown], [row.precision for row in shown], s=12, color="0.5",
                 label="tags, one point per class", zorder=2)  # fmt: skip
    axes.scatter([metrics.micro.recall], [metrics.micro.precision], s=60, color="C3", marker="x",
                 label=f"tags, micro: F1 {metrics.micro.f1:.3f}", zorder=4)  # fmt: skip
    title = f"{metrics.images} images" + ("" if metrics.mean_ap is None else f", mAP {metrics.mean_ap:.3f}")
    axes.set_title(title)
    axes.legend(loc="lower left")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))

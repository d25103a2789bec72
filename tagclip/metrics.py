"""How good tags are: mAP of scores; precision, recall and F1 of decisions."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from sklearn.metrics import average_precision_score


@dataclass(frozen=True)
class PRF:
    """Precision, recall and F1, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassMetrics:
    """One class: its name, its positives among the labels, and its figures; `ap` None without scores or positives."""

    name: str
    positives: int
    tagged: int
    precision: float
    recall: float
    f1: float
    ap: float | None


@dataclass(frozen=True)
class TagMetrics:
    """Figures of a tagger.

    Attributes:
        images: how many.
        micro: over all (image, class) pairs together ("overall").
        macro: mean of the classes' figures.
        samples: mean of the images' figures.
        mean_ap: mean of the classes' average precisions; None without scores.
        classes: figures of each class.
    """

    images: int
    micro: PRF
    macro: PRF
    samples: PRF
    mean_ap: float | None
    classes: tuple[ClassMetrics, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def table(self, *, classes: bool = False) -> str:
        """For the screen; with one row per class on request."""
        lines = [f"{'':<22}{'P':>7}{'R':>7}{'F1':>7}"]
        for title, row in (("micro", self.micro), ("per class", self.macro), ("per sample", self.samples)):
            lines.append(f"{title:<22}{row.precision:7.3f}{row.recall:7.3f}{row.f1:7.3f}")
        if classes:
            lines.append(f"\n{'class':<22}{'P':>7}{'R':>7}{'F1':>7}{'AP':>7}{'positives':>11}{'tagged':>8}")
            for one in self.classes:
                ap = "-" if one.ap is None else f"{one.ap:.3f}"
                figures = f"{one.precision:7.3f}{one.recall:7.3f}{one.f1:7.3f}{ap:>7}"
                lines.append(f"{one.name[:21]:<22}{figures}{one.positives:11d}{one.tagged:8d}")
        mean = "- (needs scores)" if self.mean_ap is None else f"{self.mean_ap:.3f}"
        lines.append(f"\nmAP {mean}   images {self.images}")
        return "\n".join(lines)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """AP of one class: the sum of the precision at each positive, over the number of positives.

    Without ties this is the TagCLIP evaluation's definition; images of equal score count as one step, so that the
    figure does not depend on their order.

    Args:
        scores: (n,) any real numbers.
        labels: (n,) bool, at least one True.
    """
    return float(average_precision_score(labels, scores))


def measure_tags(
    labels: np.ndarray,
    tags: np.ndarray,
    scores: np.ndarray | None,
    names: tuple[str, ...],
    *,
    absent: Literal["leave_out", "zero"] = "leave_out",
) -> TagMetrics:
    """All figures of a set of images.

    Args:
        labels: ground truth, (n, C) bool, n > 0.
        tags: decisions, (n, C) bool.
        scores: (n, C) float, NaN for scores that were not kept, which count as lower than all others; or None.
        names: C class names.
        absent: what classes without positives do to the means over classes: nothing, or (the published evaluation) 0.
    """
    support = labels.sum(axis=0)
    counted = support > 0 if absent == "leave_out" else np.ones(len(names), bool)
    hits = labels & tags
    per_class = _prf(hits.sum(axis=0), tags.sum(axis=0), support)
    ranked = None if scores is None else np.where(np.isnan(scores), np.nanmin(scores, initial=0.0) - 1, scores)
    aps = [
        average_precision(ranked[:, index], labels[:, index]) if ranked is not None and support[index] else None
        for index in range(len(names))
    ]
    micro = PRF(*(values.item() for values in _prf(*(counts.sum(keepdims=True) for counts in (hits, tags, labels)))))
    samples = PRF(*(float(values.mean()) for values in _prf(hits.sum(axis=1), tags.sum(axis=1), labels.sum(axis=1))))
    macro = PRF(*(float(values[counted].mean()) if counted.any() else 0.0 for values in per_class))
    mean_ap = None
    if ranked is not None:
        kept = [ap or 0.0 for ap, keep in zip(aps, counted, strict=True) if keep]
        mean_ap = float(np.mean(kept)) if kept else 0.0
    rows = zip(names, support, tags.sum(axis=0), *per_class, aps, strict=True)
    classes = tuple(
        ClassMetrics(name, int(positives), int(tagged), float(p), float(r), float(f1), ap)
        for name, positives, tagged, p, r, f1, ap in rows
    )
    return TagMetrics(len(labels), micro, macro, samples, mean_ap, classes)


def _prf(hits: np.ndarray, tagged: np.ndarray, positives: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 from counts; 0 where there is nothing to divide by."""
    precision = hits / np.maximum(tagged, 1)
    recall = hits / np.maximum(positives, 1)
    return precision, recall, 2 * hits / np.maximum(tagged + positives, 1)

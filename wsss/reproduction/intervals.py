"""How far a figure of a few images may lie from that of all: percentile bootstrap over images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tagclip.metrics import measure_tags
from tagclip.vocabulary import Vocabulary
from wsss.evaluation.mask_folders import coarse_table
from wsss.evaluation.tag_scores import TagScores
from wsss.files.mask_files import read_mask

RESAMPLES = 400
COVERED = 0.95  # of the interval


def bootstrap(figure: Callable[[np.ndarray], float], images: int, seed: int = 0) -> tuple[float, float]:
    """The interval that holds 95 % of a figure's values over resampled images.

    Args:
        figure: value of a sample, from indices of images (n,) int64 with repeats; NaN counts as no value.
        images: how many there are.

    Returns:
        Low and high end; NaN where no sample has a value.
    """
    generator = np.random.default_rng(seed)
    values = np.array([figure(generator.integers(0, images, images)) for _ in range(RESAMPLES)], np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return float(low), float(high)


def tag_interval(found: TagScores, tags: np.ndarray, names: tuple[str, ...], key: str) -> tuple[float, float]:
    """Interval of a figure of `tagclip evaluate tags`.

    Args:
        tags: (n, C) bool. key: "mean_ap", "micro.precision", "micro.recall" or "micro.f1".
    """

    def figure(rows: np.ndarray) -> float:
        scores = None if found.scores is None else found.scores[rows]
        value: object = measure_tags(found.truth[rows], tags[rows], scores, names)
        for name in key.split("."):
            value = getattr(value, name)
        return float("nan") if value is None else float(value)  # type: ignore[arg-type]

    return bootstrap(figure, len(tags))


def mask_interval(
    ids: Sequence[str], predicted: Path, truth: Path, vocabulary: Vocabulary, ignored: int, *, coarse: bool = False
) -> tuple[float, float]:
    """Interval of the mIoU of masks; images without a mask are left out."""
    first = 1 if vocabulary.has_background else 0
    labels = (len(set(vocabulary.coarse or ())) if coarse else len(vocabulary)) + first
    table = coarse_table(vocabulary) if coarse else None
    counts = []
    for name in ids:
        if not (predicted / f"{name}.png").is_file():
            continue
        mask, true = read_mask(predicted / f"{name}.png"), read_mask(truth / f"{name}.png")
        if table is not None:
            mask, true = table[mask], table[true]
        seen = true != ignored
        answered = np.where(mask[seen] < labels, mask[seen], labels).astype(np.int64)
        pairs = np.bincount(true[seen].astype(np.int64) * (labels + 1) + answered, minlength=labels * (labels + 1))
        counts.append(pairs.reshape(labels, labels + 1))
    if not counts:
        return float("nan"), float("nan")
    confusion = np.stack(counts)

    def miou(rows: np.ndarray) -> float:
        total = confusion[rows].sum(0)
        hit = np.diag(total).astype(np.float64)
        union = total.sum(1) + total[:, :labels].sum(0) - hit
        present = union > 0  # as the scorer counts: classes that occur nowhere have no IoU
        return float((hit[present] / union[present]).mean()) if present.any() else float("nan")

    return bootstrap(miou, len(confusion))

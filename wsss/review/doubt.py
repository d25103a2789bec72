"""How doubtful an image is: the order in which the review page shows images, the same from Python.

The page's `doubt.js` computes the same numbers with the same operations in the same order, so that both give the same
order of images, ties included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsss.review.score_levels import UNKNOWN

PARTS = 10_000  # shares are whole numbers of ten-thousandths, which JavaScript and Python read alike

FORMULA = (
    "doubt = 1 - (1 - d) * (1 - w_ignored * ignored) * (1 - w_rivals * rivals). "
    "d is the highest of all classes' 1 - |s - t| / range: s is the score, t the threshold in force (the class's once "
    "it was moved, before that the one that the run's rule gives this image), range is t - low where s < t and "
    "max(t - low, high - t) elsewhere, low and high are the lowest and highest score of the class in the run. A tag "
    "below its threshold, and a score above it without the tag, have d = 1. Classes that a person decided, and "
    "unknown scores, have no part in d. ignored is the share of ignored pixels of the mask. rivals is the highest "
    "overlap (sum of minima / sum of maxima) of the class maps of two of the image's tags. Images that are checked, "
    "rejected or failed have doubt 0."
)


@dataclass(frozen=True)
class DoubtWeights:
    """How much ignored pixels and rival classes add; ours, no paper's.

    Attributes:
        ignored (w_ignored): for a mask that is ignored altogether, what share of certainty is lost.
        rivals (w_rivals): for two classes with the same map, what share of certainty is lost.
    """

    ignored: float = 0.5
    rivals: float = 0.5


@dataclass(frozen=True)
class DoubtRule:
    """The thresholds in force.

    Attributes:
        handles: (C,) int, the level of each class's handle; in force for `moved` classes, and for all classes of a rule
            that compares an image with nothing but its own scores neither relatively nor absolutely (top_k, tags of a
            file).
        moved: (C,) bool, which handles a person has moved.
        relative: (C,) float64, t of the run's relative rule by class, or None for any other rule.
        from_zero: the relative rule's range of scores begins at 0 instead of the image's lowest score.
        floor: the lowest level of a threshold of the relative rule, -1 for none.
    """

    handles: np.ndarray
    moved: np.ndarray
    relative: np.ndarray | None = None
    from_zero: bool = False
    floor: float = -1.0


@dataclass(frozen=True)
class DoubtInput:
    """What is known of n images.

    Attributes:
        levels: scores, (n, C) uint16 (see `ScoreScale`), UNKNOWN where there is none.
        tags: (n, C) bool, as they stand after thresholds and corrections.
        decided: (n, C) bool, tags that a person added or removed.
        settled: (n,) bool, images that are checked, rejected or failed.
        ignored: (n,) int, ignored pixels in ten-thousandths of the mask.
        rivals: for each image, (class, class, overlap in ten-thousandths) of pairs of its class maps.
        zero: level of the score 0.
    """

    levels: np.ndarray
    tags: np.ndarray
    decided: np.ndarray
    settled: np.ndarray
    ignored: np.ndarray
    rivals: Sequence[Sequence[tuple[int, int, int]]] = field(default_factory=tuple)
    zero: int = 0


def doubts(images: DoubtInput, rule: DoubtRule, weights: DoubtWeights | None = None) -> np.ndarray:
    """The doubt of every image, see FORMULA: (n,) float64 in [0, 1]."""
    weights = weights or DoubtWeights()
    best = margins(images, rule).max(axis=1, initial=0.0)
    ignored = np.asarray(images.ignored, np.float64) / PARTS
    certainty = (1 - best) * (1 - weights.ignored * ignored) * (1 - weights.rivals * _rivalry(images))
    return np.where(images.settled, 0.0, 1 - certainty)


def margins(images: DoubtInput, rule: DoubtRule) -> np.ndarray:
    """d of every class, see FORMULA: (n, C) float64 in [0, 1]; 0 where it has no part."""
    known = images.levels != UNKNOWN
    levels = np.where(known, images.levels, 0).astype(np.float64)
    low = np.where(known, levels, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, levels, -np.inf).max(axis=0, initial=-np.inf)
    threshold = thresholds_in_force(images, rule)
    below = threshold - low
    span = np.where(levels < threshold, below, np.maximum(below, high - threshold))
    margin = np.where(images.tags, levels - threshold, threshold - levels)
    with np.errstate(invalid="ignore", divide="ignore"):
        doubt = np.where(margin > 0, 1 - margin / span, 1.0)
    return np.where(known & ~images.decided, doubt, 0.0)


def thresholds_in_force(images: DoubtInput, rule: DoubtRule) -> np.ndarray:
    """t of every class and image, as a level: (n, C) float64."""
    handles = np.broadcast_to(rule.handles.astype(np.float64), images.levels.shape)
    if rule.relative is None:
        return handles
    known = images.levels != UNKNOWN
    levels = images.levels.astype(np.float64)
    high = np.where(known, levels, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    low = np.where(known, levels, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    low = np.full_like(low, images.zero) if rule.from_zero else low
    with np.errstate(invalid="ignore"):  # images without any known score
        own = np.maximum(low + rule.relative * (high - low), rule.floor)
    return np.where(rule.moved, handles, own)


def doubt_order(values: np.ndarray) -> np.ndarray:
    """Places of images, the most doubtful first, in the run's order among equals: (n,) -> (n,) int64."""
    return np.argsort(-values, kind="stable")


def _rivalry(images: DoubtInput) -> np.ndarray:
    strongest = np.zeros(len(images.levels), np.float64)
    for place, pairs in enumerate(images.rivals):
        for first, second, overlap in pairs:
            if images.tags[place, first] and images.tags[place, second]:
                strongest[place] = max(strongest[place], overlap / PARTS)
    return strongest


def doubt_settings(weights: DoubtWeights) -> Mapping[str, Any]:
    """JSON-ready, stored with the page's data."""
    return {"formula": FORMULA, "ignored": weights.ignored, "rivals": weights.rivals, "parts": PARTS}

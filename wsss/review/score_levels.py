"""Scores as whole numbers that decide like the scores themselves, and where the page's threshold handles start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

UNKNOWN = 65535  # level of a score that the run does not keep
MOST_LEVELS = 65000
FINEST_DIGITS = 5
UNIT_STEP = 2e-5  # of scores in [0, 1]: 50,000 levels
STEPS = (2, 5, 10)
ROUND = (500, 50, 5)  # levels between round thresholds: 0.01, 0.001 and 0.0001 of scores in [0, 1]


@dataclass(frozen=True)
class ScoreScale:
    """The thresholds that the review page offers; a score's level is the number of the highest one that it reaches.

    A class whose threshold is moved to level k is a tag where `score >= value(k)`, compared as float32
    (`wsss.files.corrections.corrected_tags`). The same images have `level >= k`, without an exception, so that the page
    and the command line agree.

    Attributes:
        base: number of steps from 0 to level 0.
        step: between two levels.
        digits: decimals of a threshold.
        highest: the highest level, below UNKNOWN.
    """

    base: int = 0
    step: float = UNIT_STEP
    digits: int = FINEST_DIGITS
    highest: int = round(1 / UNIT_STEP)

    @classmethod
    def of_scores(cls, lowest: float, highest: float) -> ScoreScale:
        """The scale of scores between two values: 50,000 levels in [0, 1], round steps for anything else."""
        if lowest >= 0 and highest <= 1:
            return cls()
        span = max(highest, 0.0) - min(lowest, 0.0)
        exponent = math.floor(math.log10(span / MOST_LEVELS))
        factor = next(factor for factor in STEPS if span / (factor * 10.0**exponent) <= MOST_LEVELS - 2)
        step, digits = factor * 10.0**exponent, max(0, -exponent)
        base = math.floor(min(lowest, 0.0) / step)
        return cls(base, step, digits, math.ceil(max(highest, 0.0) / step) - base)

    def value(self, level: int) -> float:
        """The threshold at a level, rounded to `digits` decimals."""
        return round((self.base + level) * self.step, self.digits)

    def levels(self, scores: np.ndarray) -> np.ndarray:
        """Levels of scores: float32 of any shape -> uint16; NaN -> UNKNOWN."""
        grid = np.round((self.base + np.arange(self.highest + 1)) * self.step, self.digits).astype(np.float32)
        scores = np.asarray(scores, np.float32)
        found = np.searchsorted(grid, scores, side="right") - 1
        return np.where(np.isnan(scores), UNKNOWN, found.clip(0, self.highest)).astype(np.uint16)

    def nearest(self, value: float) -> int:
        """The level whose threshold is nearest to a value."""
        return min(max(round(value / self.step) - self.base, 0), self.highest)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for the page."""
        return {"base": self.base, "step": self.step, "digits": self.digits, "highest": self.highest}


def class_handles(levels: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """The threshold of each class that reproduces its tags best: `level >= handle` errs for the fewest images.

    Among equals, the handle stands near the middle of the widest gap between two levels that occur, at the roundest
    number there. A class without any tag gets the median handle of the others or, where scores reach above that, the
    level above its highest.

    Args:
        levels: (n, C) uint16, UNKNOWN where there is no score.
        tags: (n, C) bool.

    Returns:
        (C,) int64; 0 for a class without any known score.
    """
    found = [_handle(levels[:, place], tags[:, place]) for place in range(levels.shape[1])]
    known = [handle for handle in found if handle is not None]
    common = _roundest(0, UNKNOWN - 1, int(np.median(known))) if known else 0
    return np.array([
        _above(levels[:, place], common) if handle is None else handle for place, handle in enumerate(found)
    ], np.int64)  # fmt: skip


def _handle(levels: np.ndarray, tags: np.ndarray) -> int | None:
    known = levels != UNKNOWN
    values, hits = levels[known].astype(np.int64), tags[known]
    if not hits.any():
        return None
    places, inverse = np.unique(values, return_inverse=True)
    on = np.bincount(inverse, weights=hits, minlength=len(places))
    off = np.bincount(inverse, weights=~hits, minlength=len(places))
    # Errors where the threshold lies just at places[k]: tags below it and others from it on.
    errors = np.concatenate([[0], on.cumsum()[:-1]]) + off[::-1].cumsum()[::-1]
    lower = np.concatenate([[places[0]], places[:-1]])
    gap = np.where(errors == np.min(errors), places - lower, -1)
    best = int(np.argmax(gap))
    below, reached = int(lower[best]), int(places[best])
    return _roundest(below, reached, (below + reached + 1) // 2)


def _roundest(below: int, reached: int, middle: int) -> int:
    """The level nearest to the middle of (below, reached] of the roundest ones there."""
    for grain in ROUND:
        level = grain * round(middle / grain)
        if below < level <= reached:
            return level
    return max(middle, below + 1) if below < reached else reached


def _above(levels: np.ndarray, common: int) -> int:
    known = levels[levels != UNKNOWN]
    if not known.size:
        return 0
    return max(common, min(int(known.max()) + 1, UNKNOWN - 1))

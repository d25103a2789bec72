"""Class maps of one image, and what can be done with them without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass
class ClassMaps:
    """Class maps of one image on the patch grid, float32, from whatever source.

    Attributes:
        indices: class index of each map.
        raw: before any refinement by attention, (K, h, w) in [0, 1].
        refined: after it, (K, h, w), on its own scale; equal to `raw` for sources that refine nothing.
        maps: the same scaled to [0, 1], what masks are made from.
        probabilities: of the K tags, then of the background words, (K + B,); empty for K = 0.
    """

    indices: list[int]
    raw: np.ndarray
    refined: np.ndarray
    maps: np.ndarray
    probabilities: np.ndarray


def mean_of_views(views: Sequence[ClassMaps]) -> ClassMaps:
    """The mean of each array over results of one image and one patch grid."""
    names = ("raw", "refined", "maps", "probabilities")
    arrays = {name: np.mean([getattr(view, name) for view in views], axis=0) for name in names}
    return ClassMaps(list(views[0].indices), **arrays)


def weigh_by_scores(found: ClassMaps, scores: Sequence[float] | None, power: float) -> ClassMaps:
    """`maps` times (score / best score of the image) ** power; see `MaskConfig.score_power`.

    Args:
        scores: of the K tags, (K,), not negative, NaN where unknown; None leaves the maps as they are.
    """
    if scores is None or power == 0 or not found.indices:
        return found
    known = np.asarray(scores, np.float32)
    best = np.nanmax(known, initial=0.0)
    shares = np.where(np.isnan(known) | (best <= 0), 1.0, known / max(best, np.finfo(np.float32).tiny))
    return replace(found, maps=found.maps * (shares**power).astype(np.float32)[:, None, None])

"""How far the results of one side are from another's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tagclip.config import TagRuleConfig
from tagclip.thresholds import select
from wsss.benchmark.procedure import PhotoResult
from wsss.benchmark.workload import Photo
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer


def compare_results(
    outcomes: Sequence[PhotoResult],
    others: Sequence[PhotoResult],
    photos: Sequence[Photo],
    rule: TagRuleConfig,
    labels: int,
    has_background: bool,
) -> dict[str, Any]:  # fmt: skip
    """Largest differences, photos whose tags by the rule differ, and mIoU between the masks (arg max, no CRF).

    Args:
        labels: of a mask, background included.
    """
    result: dict[str, Any] = {}
    for name in ("scores", "raw", "refined", "label_scores"):
        pairs = [(getattr(one, name), getattr(other, name)) for one, other in zip(outcomes, others, strict=True)]
        result[f"max_difference_{name}"] = max(float(np.abs(one - other).max()) for one, other in pairs)
    result["crops_equal"] = all(one.crops == other.crops for one, other in zip(outcomes, others, strict=True))
    tags = [select(np.stack([outcome.scores for outcome in side]), rule) for side in (outcomes, others)]
    result["photos_with_other_tags"] = float((tags[0] != tags[1]).any(axis=1).mean())
    scorer = MaskScorer(MaskEvaluationConfig(boundary_width=0))
    for one, other, photo in zip(outcomes, others, photos, strict=True):
        scorer.update(arg_max_mask(one, photo, has_background), arg_max_mask(other, photo, has_background))
    scores = scorer.scores([str(label) for label in range(labels)])
    result["mask_miou"], result["mask_pixels_equal"] = scores.miou, scores.pixel_accuracy
    return result


def arg_max_mask(outcome: PhotoResult, photo: Photo, has_background: bool) -> np.ndarray:
    """(H, W) uint8: 0 background and class c -> c + 1, or without background c -> c."""
    ids = [label + has_background for label in photo.labels]
    if has_background:
        return np.array([0, *ids], np.uint8)[outcome.label_scores.argmax(axis=0)]
    return np.array(ids, np.uint8)[outcome.label_scores[1:].argmax(axis=0)]

"""Dual-masking attention refinement (TagCLIP, arXiv 2312.12828, section "DMAR"): pure functions over batches."""

from typing import NamedTuple

import torch
from torch import Tensor

from tagclip.boxes import box_masks, scale_maps
from tagclip.clip import Grid
from tagclip.config import DMARConfig
from tagclip.devices import to_double

CLASSES_AT_ONCE = 512  # whose maps and boxes are worked out together; more classes go in parts that bound the memory


class Refined(NamedTuple):
    """Both passes of the refinement, (B, N, C) fp32. Not distributions: attention rows are not renormalised."""

    first: Tensor
    scores: Tensor


def coarse_scores(features: Tensor, classifier: Tensor, logit_scale: float) -> Tensor:
    """Class probabilities of each patch, P = softmax over classes of logit_scale F T^t.

    Args:
        features: patch features, (B, N, D), unit norm.
        classifier: T, (C, D), unit norm, target classes and background words.

    Returns:
        (B, N, C) fp32, rows sum to 1.
    """
    return (logit_scale * (features.float() @ classifier.T)).softmax(dim=-1)


def masked_affinity(affinity: Tensor, votes: Tensor | None, needed: int) -> Tensor:
    """A: mean attention between patches where at least `needed` blocks attend above their mean, else 0.

    Args:
        affinity: mean head-averaged attention, (B, N, N).
        votes: blocks that attend, (B, N, N) integers; None leaves `affinity` as it is.
    """
    return affinity if votes is None else affinity * (votes >= needed)


def refine_scores(coarse: Tensor, affinity: Tensor, grid: Grid, config: DMARConfig) -> Refined:
    """R = A (B * P): scores spread along attention, from source patches inside the boxes of their class only.

    No class depends on another, so that wide vocabularies are refined in parts of `CLASSES_AT_ONCE` classes.

    Args:
        coarse: P, class probabilities of each patch, (B, N, C).
        affinity: A, (B, N, N), masked by the votes.
        grid: patch grid, grid.count == N.
    """
    classes = coarse.shape[2]
    if not config.class_mask:
        first = affinity @ coarse
        return Refined(first, first)
    if classes <= CLASSES_AT_ONCE:
        return _refine_classes(coarse, affinity, grid, config)
    refined = Refined(torch.empty_like(coarse), torch.empty_like(coarse))
    for start in range(0, classes, CLASSES_AT_ONCE):
        part = slice(start, start + CLASSES_AT_ONCE)
        for whole, values in zip(refined, _refine_classes(coarse[..., part], affinity, grid, config), strict=True):
            whole[..., part] = values
    return refined


def _refine_classes(coarse: Tensor, affinity: Tensor, grid: Grid, config: DMARConfig) -> Refined:
    first = affinity @ coarse
    batch, patches, classes = first.shape
    maps = scale_maps(first.transpose(1, 2).reshape(batch, classes, grid.height, grid.width))
    # In double precision, so that the order of summation, which depends on the batch, cannot move the threshold.
    thresholds = to_double(maps).mean(dim=(-2, -1))
    boxes = box_masks(maps, thresholds, clip_last=config.clip_boxes)
    class_mask = boxes.reshape(batch, classes, patches).transpose(1, 2)
    return Refined(first, affinity @ (coarse * class_mask))


def local_scores(patch_scores: Tensor, targets: int) -> Tensor:
    """s_c = max over patches of the first `targets` classes: (B, N, C) -> (B, targets)."""
    return torch.amax(patch_scores[..., :targets], dim=1)

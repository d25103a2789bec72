"""Dual-masking attention refinement (TagCLIP, arXiv 2312.12828, section "DMAR"): pure functions over batches."""

from typing import NamedTuple

import torch
from torch import Tensor

from tagclip.boxes import box_masks, scale_maps
from tagclip.clip import Grid
from tagclip.config import DMARConfig
from tagclip.devices import to_double


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

    Args:
        coarse: P, class probabilities of each patch, (B, N, C).
        affinity: A, (B, N, N), masked by the votes.
        grid: patch grid, grid.count == N.
    """
    first = affinity @ coarse
    if not config.class_mask:
        return Refined(first, first)
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

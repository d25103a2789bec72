"""Patch tokens averaged over, and attended by, patches that look like them (SC-CLIP, arXiv 2411.15869).

Likeness is the cosine between tokens of an earlier block. The N x N matrices are made some rows at a time, never kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.maps.parts import row_parts

SUM_EPSILON = 1e-6


def average_alike(values: Tensor, unit: Tensor, threshold: float) -> Tensor:
    """Each row replaced by a mean over all rows, weighted by their cosines; cosines below the threshold count as 0.

    Args:
        values: (N, D).
        unit: unit-norm tokens that say what is alike, (N, width).
    """
    result = torch.empty_like(values)
    for part in row_parts(len(unit), len(unit)):
        weights = unit[part] @ unit.T
        weights.masked_fill_(weights < threshold, 0)
        weights /= weights.sum(dim=-1, keepdim=True) + SUM_EPSILON
        result[part] = weights @ values
    return result


def attend_alike(values: Tensor, unit: Tensor, sharpness: float) -> Tensor:
    """softmax(sharpness (S - mean S)) values, S the cosines; those below their mean have no weight.

    Args:
        values: (N, D).
        unit: unit-norm tokens that say what is alike, (N, width).
    """
    mean = unit.mean(dim=0).square().sum()  # of all N^2 cosines
    result = torch.empty_like(values)
    for part in row_parts(len(unit), len(unit)):
        logits = (unit[part] @ unit.T - mean) * sharpness
        logits.masked_fill_(logits < 0, -torch.inf)
        rows = torch.arange(len(logits), device=unit.device)
        logits[rows, rows + part.start] = sharpness * (1 - mean)  # a patch is like itself, whatever the rounding
        result[part] = logits.softmax(dim=-1) @ values
    return result


def unit_rows(tokens: Tensor) -> Tensor:
    """Rows of unit norm, fp32."""
    return F.normalize(tokens.float(), dim=-1)

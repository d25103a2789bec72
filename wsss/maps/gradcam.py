"""Softmax Grad-CAM (CLIP-ES, arXiv 2212.09506, section 3.2): where in the image a tag's evidence lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tagclip.clip.encoder import FrozenCLIP, Grid
from tagclip.clip.pooled_gradient import PooledPatches
from tagclip.precision import exact_float32
from wsss.config import CamConfig


@dataclass
class SoftmaxCams:
    """CAMs of one image.

    Attributes:
        maps: one map per tag, (K, h, w) float32 in [0, 1].
        probabilities: of the K tags, then of the background words, (K + B,) float32, summing to 1.
    """

    maps: Tensor
    probabilities: Tensor


def scale_to_unit(maps: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Each map of (K, h, w) scaled to [0, 1]: subtract its minimum, divide by `epsilon` plus its new maximum."""
    maps = maps - maps.amin((-2, -1), keepdim=True)
    return maps / (epsilon + maps.amax((-2, -1), keepdim=True))


@torch.no_grad()
@exact_float32()
def softmax_gradcam(
    clip: FrozenCLIP, tokens: Tensor, grid: Grid, tag_rows: Tensor, background_rows: Tensor, config: CamConfig
) -> SoftmaxCams:
    """Class activation maps of one image for its tags.

    The last block runs once, on float32 tokens whatever the model's dtype. A tag's probability depends on the tokens
    only through the pooled feature, so d p_k / d feature is in closed form and a tag costs one backward pass.

    Args:
        tokens: input of the last block, (1 + N, width), [CLS] first.
        grid: patch grid, height * width == N.
        tag_rows: unit-norm text rows of the image's tags, (K, D), K >= 0.
        background_rows: unit-norm text rows of the background words, (B, D), B >= 0.
    """
    if not len(tag_rows):
        empty = torch.zeros(0, grid.height, grid.width, device=tokens.device)
        return SoftmaxCams(empty, torch.zeros(0, device=tokens.device))
    product_dtype = torch.float32 if config.precision == "float32" else clip.dtype
    pooled = PooledPatches(clip, tokens.float(), product_dtype=product_dtype)
    rows = torch.cat([tag_rows, background_rows]).float()
    probabilities, jacobian = probability_gradients(pooled.feature, rows, clip.logit_scale)
    weights = pooled.gradient(jacobian[: len(tag_rows)])  # (K, width)
    cams = (pooled.normed[1:] @ weights.T).relu().T.reshape(-1, grid.height, grid.width)
    for _ in range(config.normalisations):
        cams = scale_to_unit(cams, config.epsilon)
    return SoftmaxCams(cams, probabilities)


def probability_gradients(feature: Tensor, rows: Tensor, logit_scale: float) -> tuple[Tensor, Tensor]:
    """p = softmax(logit_scale * cosine(feature, rows)) and d p / d feature, in closed form.

    Args:
        feature: (D,), any norm.
        rows: unit-norm text rows, (C, D).

    Returns:
        p, (C,), and its Jacobian, (C, D).
    """
    norm = feature.norm()
    unit = feature / norm
    probabilities = (logit_scale * (rows @ unit)).softmax(0)
    # 1 - p_k as the sum of the others: exact also where p_k rounds to 1.
    others = probabilities.expand(len(rows), -1).clone().fill_diagonal_(0)
    at_logits = -probabilities[:, None] * others
    at_logits.diagonal().copy_(probabilities * others.sum(1))
    along_rows = at_logits @ rows * logit_scale
    return probabilities, (along_rows - (along_rows @ unit)[:, None] * unit) / norm

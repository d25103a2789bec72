"""Softmax Grad-CAM (CLIP-ES, arXiv 2212.09506, section 3.2): where in the image a tag's evidence lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tagclip.clip.encoder import FrozenCLIP, Grid
from tagclip.clip.pooled_gradient import PooledPatches
from tagclip.precision import exact_float32
from wsss.config import CamConfig

BYTES_TOGETHER = 4 * 2**30  # that the images of one step of `softmax_gradcam_together` may take, about


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
    """Each map of (..., h, w) scaled to [0, 1]: subtract its minimum, divide by `epsilon` plus its new maximum."""
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
    return SoftmaxCams(*_cams(clip, tokens, grid, tag_rows, background_rows, config))


@torch.no_grad()
@exact_float32()
def softmax_gradcam_together(
    clip: FrozenCLIP,
    tokens: Tensor,
    grid: Grid,
    tag_rows: Sequence[Tensor],
    background_rows: Tensor,
    config: CamConfig,
) -> tuple[Tensor, Tensor]:
    """`softmax_gradcam` of several images at once: fewer and larger kernels, which is what an accelerator needs.

    Args:
        tokens: (I, 1 + N, width).
        tag_rows: of each image, (K_i, D); K is the largest K_i, at least 1.

    Returns:
        Maps, (I, K, h, w), zero where an image has fewer tags; probabilities, (I, K + B), zero there as well.
    """
    most = max(len(rows) for rows in tag_rows)
    rows = torch.stack([functional.pad(rows, (0, 0, 0, most - len(rows))) for rows in tag_rows])
    known = torch.tensor([[place < len(rows) for place in range(most)] for rows in tag_rows], device=tokens.device)
    known = functional.pad(known, (0, len(background_rows)), value=True)
    if not known.any(1).all():  # without a tag and a background word there is nothing that could be probable
        known[~known.any(1)] = True

    def cams(tokens: Tensor, rows: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        return _cams(clip, tokens, grid, rows, background_rows, config, known)

    attention_bytes = 4 * clip.heads * grid.count * (grid.count + 1)
    together = max(1, BYTES_TOGETHER // (3 * attention_bytes + 100 * grid.count * clip.width))
    return torch.vmap(cams, chunk_size=together)(tokens, rows, known)


def _cams(
    clip: FrozenCLIP,
    tokens: Tensor,
    grid: Grid,
    tag_rows: Tensor,
    background_rows: Tensor,
    config: CamConfig,
    known: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Maps and probabilities; rows that are not `known` (K + B,) take no part, their maps are zero."""
    product_dtype = torch.float32 if config.precision == "float32" else clip.dtype
    pooled = PooledPatches(clip, tokens.float(), product_dtype=product_dtype)
    rows = torch.cat([tag_rows, background_rows]).float()
    probabilities, jacobian = probability_gradients(pooled.feature, rows, clip.logit_scale, known)
    weights = pooled.gradient(jacobian[: len(tag_rows)])  # (K, width)
    cams = (pooled.normed[1:] @ weights.T).relu().T.reshape(-1, grid.height, grid.width)
    for _ in range(config.normalisations):
        cams = scale_to_unit(cams, config.epsilon)
    return cams, probabilities


def probability_gradients(
    feature: Tensor, rows: Tensor, logit_scale: float, known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """p = softmax(logit_scale * cosine(feature, rows)) and d p / d feature, in closed form.

    Args:
        feature: (D,), any norm.
        rows: unit-norm text rows, (C, D).
        known: rows that take part, (C,) bool; the others have probability 0. None for all.

    Returns:
        p, (C,), and its Jacobian, (C, D).
    """
    norm = feature.norm()
    unit = feature / norm
    logits = logit_scale * (rows @ unit)
    if known is not None:
        logits = logits.masked_fill(~known, -torch.inf)
    probabilities = logits.softmax(0)
    # 1 - p_k as the sum of the others: exact also where p_k rounds to 1.
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    others = probabilities.expand(len(rows), -1).masked_fill(own, 0)
    at_logits = -probabilities[:, None] * others
    at_logits.diagonal().copy_(probabilities * others.sum(1))
    along_rows = at_logits @ rows * logit_scale
    return probabilities, (along_rows - (along_rows @ unit)[:, None] * unit) / norm

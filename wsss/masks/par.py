"""Pixel-adaptive refinement by colour and place (PAR; Ru et al., arXiv 2203.02664, section 3.3), as ExCEL uses it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wsss.config import ParConfig
from wsss.masks.pamr import NEIGHBOURS, neighbours_of

SMALL = 1e-8


@torch.no_grad()
def refine_with_par(image: Tensor, scores: Tensor, config: ParConfig) -> Tensor:
    """Average each map over neighbours of the same colour and, a little, over near ones, `iterations` times.

    The weight of a neighbour is a softmax over all neighbours of the mean over colours of -(|x_i - x_n| / (colour_scale
    s_i))^2, s_i the standard deviation over the neighbours, plus `place_weight` times the same of their distances. The
    weights sum to 1 + place_weight, so that values grow a little with every step.

    Args:
        image: (3, H, W), any float scale.
        scores: (K, H, W) float, on the same device.

    Returns:
        (K, H, W) float32.
    """
    weights = par_weights(image.float(), config)
    scores = scores.float()
    for _ in range(config.iterations):
        refined = torch.zeros_like(scores)
        for weight, neighbour in zip(weights, neighbours_of(scores, config.dilations), strict=True):
            refined.addcmul_(weight, neighbour)
        scores = refined
    return scores


def par_weights(image: Tensor, config: ParConfig) -> Tensor:
    """(neighbours, H, W), summing to 1 + place_weight over the neighbours."""
    count = len(config.dilations) * len(NEIGHBOURS)
    total = torch.zeros_like(image)
    for neighbour in neighbours_of(image, config.dilations):
        total += neighbour
    mean, squares = total / count, torch.zeros_like(image)
    for neighbour in neighbours_of(image, config.dilations):
        squares += (neighbour - mean) ** 2
    scale = config.colour_scale * ((squares / (count - 1)).sqrt() + SMALL)
    logits = [
        -((image - neighbour).abs() / scale).square().mean(dim=0)
        for neighbour in neighbours_of(image, config.dilations)
    ]
    distances = torch.tensor([size * math.hypot(dy, dx) for size in config.dilations for dy, dx in NEIGHBOURS])
    near = -((distances / (config.colour_scale * (distances.std() + SMALL))) ** 2)
    weights = torch.stack(logits).softmax(dim=0)
    return weights.add_(config.place_weight * near.softmax(dim=0).to(weights.device)[:, None, None])

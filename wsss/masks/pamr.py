"""Pixel-adaptive mask refinement (PAMR; Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels").

An alternative to the dense CRF that runs on the accelerator: each step replaces a pixel's scores by an average over
neighbours that look like it (arXiv 2005.08104, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from wsss.config import PamrConfig

# The 3 x 3 neighbourhood without its centre, (dy, dx).
NEIGHBOURS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)


@torch.no_grad()
def refine_with_pamr(image: Tensor, scores: Tensor, config: PamrConfig) -> Tensor:
    """Average each map over similar neighbours, `iterations` times.

    The weight of neighbour n of pixel i is a softmax over all neighbours, of all dilations together, of the mean over
    colour channels of -|x_i - x_n| / (temperature * s_i), with s_i the standard deviation of the channel over the
    neighbourhood. The temperature and the use of s_i rather than its square are our reading: the paper leaves the
    scale of the kernel open. The image's border is repeated.

    Args:
        image: (3, H, W), any float scale: the weights do not depend on it.
        scores: (K, H, W) float, on the same device.

    Returns:
        (K, H, W) float32. Each value lies between the smallest and the largest of its map; a constant sum over the
        maps is kept.
    """
    weights = _neighbour_weights(image.float(), config)
    scores = scores.float()
    for _ in range(config.iterations):
        refined = torch.zeros_like(scores)
        for weight, neighbour in zip(weights, neighbours_of(scores, config.dilations), strict=True):
            refined.addcmul_(weight, neighbour)
        scores = refined
    return scores


def _neighbour_weights(image: Tensor, config: PamrConfig) -> Tensor:
    """(neighbours, H, W), summing to 1 over the neighbours."""
    epsilon = torch.finfo(image.dtype).eps * max(1.0, float(image.abs().max()))  # flat areas: equal weights
    centre = len(config.dilations) if config.centre_per_dilation else 1
    count = centre + len(config.dilations) * len(NEIGHBOURS)
    total = centre * image
    for neighbour in neighbours_of(image, config.dilations):
        total += neighbour
    mean = total / count
    squares = centre * (image - mean) ** 2
    for neighbour in neighbours_of(image, config.dilations):
        squares += (neighbour - mean) ** 2
    scale = config.temperature * (squares / (count - 1)).sqrt() + epsilon
    logits = [-((image - neighbour).abs() / scale).mean(0) for neighbour in neighbours_of(image, config.dilations)]
    return torch.stack(logits).softmax(0)


def neighbours_of(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Each neighbour of every pixel as a shifted view, (C, H, W), dilation by dilation."""
    height, width = maps.shape[-2:]
    for dilation in dilations:
        padded = functional.pad(maps[None], (dilation,) * 4, mode="replicate")[0]
        for dy, dx in NEIGHBOURS:
            top, left = dilation * (1 + dy), dilation * (1 + dx)
            yield padded[:, top : top + height, left : left + width]

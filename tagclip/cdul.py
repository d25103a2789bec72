"""Global-local label initialisation of CDUL (Abdelfattah et al., arXiv 2307.16634, section 3.1) on the frozen CLIP.

CLIP answers for the whole image and for each snippet of it; only its [CLS] token is asked, no patch.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.clip import Grid
from tagclip.config import CdulConfig


def cut_snippets(images: Tensor, per_side: int, patch_size: int, native: Grid) -> Tensor:
    """Equal parts of each image that do not overlap, brought to the model's native input.

    Args:
        images: (B, 3, H, W) normalised. per_side: n, so that there are n * n parts, row by row.

    Returns:
        (B, n * n, 3, native pixels) float32. Sides that n does not divide give parts that differ by a pixel; a side
        shorter than n gives the same pixels more than once.
    """
    height, width = images.shape[2:]
    rows, columns = _edges(height, per_side), _edges(width, per_side)
    pixels = (native.height * patch_size, native.width * patch_size)
    parts = [
        F.interpolate(images[:, :, top:bottom, left:right].float(), size=pixels, mode="bilinear", align_corners=False)
        for top, bottom in rows
        for left, right in columns
    ]
    return torch.stack(parts, dim=1)


def aggregate_snippets(scores: Tensor, threshold: float) -> Tensor:
    """A class's best snippet where that is sure enough, otherwise its worst one.

    Args:
        scores: of the snippets, (B, S, C). threshold: zeta; 0 gives the maximum, more than 1 the minimum.

    Returns:
        (B, C): alpha, the maximum over the snippets, where alpha >= zeta, else beta, the minimum.
    """
    best, worst = scores.amax(dim=1), scores.amin(dim=1)
    return torch.where(best >= threshold, best, worst)


def initial_labels(whole: Tensor, snippets: Tensor, config: CdulConfig) -> Tensor:
    """Final scores, (g + a) / 2 + lambda |g - a| / 2 of the global scores g and the aggregated ones a.

    Args:
        whole: (B, C) of the whole image. snippets: (B, S, C); all in [0, 1].

    Returns:
        (B, C) in [0, 1].
    """
    local = aggregate_snippets(snippets, config.threshold)
    return (whole + local) / 2 + config.difference_weight * (whole - local).abs() / 2


def _edges(side: int, count: int) -> list[tuple[int, int]]:
    cuts = [round(place * side / count) for place in range(count + 1)]
    return [
        (min(first, side - 1), max(second, min(first, side - 1) + 1))
        for first, second in pairwise(cuts)
    ]

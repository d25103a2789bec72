"""Anomalous patch tokens: found by a local outlier factor, replaced by their neighbours (SC-CLIP, arXiv 2411.15869)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.errors import UsageError
from wsss.maps.parts import row_parts

SPARE_CANDIDATES = 8


def outlier_scores(tokens: Tensor, neighbours: int = 30, floor: float = 1e-12) -> Tensor:
    """How much sparser a token lies than its neighbours do: the mean over them of d_k(token) / d_k(neighbour).

    d_k is the squared Euclidean distance to the k-th neighbour. The published code takes a token's own d_k as its
    reachability distance, where the local outlier factor of Breunig et al. takes the neighbour's: this ratio remains.

    Args:
        tokens: (N, width).
        neighbours: k; at most N - 1 are there.
        floor: distances count as at least this share of the largest d_k, so that equal tokens have finite scores; 0, as
            published, gives NaN for them.

    Returns:
        (N,) fp32; all 1 where all tokens are equal.
    """
    tokens = tokens.float()
    count = min(neighbours, len(tokens) - 1)
    if count < 1:
        return torch.ones(len(tokens), device=tokens.device)
    # Products find the candidates fast, but tell near ones apart by their rounding: the order is that of differences.
    candidates = min(count + SPARE_CANDIDATES, len(tokens) - 1)
    centred = tokens - tokens.mean(dim=0)
    squares = centred.square().sum(dim=1)
    indices, reaches = [], []
    for part in row_parts(len(tokens), max(len(tokens), candidates * tokens.shape[1])):
        rough = squares - 2 * centred[part] @ centred.T
        rows = torch.arange(len(rough), device=tokens.device)
        rough[rows, rows + part.start] = torch.inf  # the token itself
        near = rough.topk(candidates, dim=1, largest=False).indices
        distances = (tokens[near] - tokens[part, None]).square_().sum(dim=-1)
        nearest = distances.topk(count, dim=1, largest=False)
        indices.append(near.gather(1, nearest.indices))
        reaches.append(nearest.values[:, -1])
    reach = torch.cat(reaches)
    if floor > 0:
        reach = reach.clamp(min=max(floor * float(reach.max()), torch.finfo(reach.dtype).tiny))
    return (reach[:, None] / reach[torch.cat(indices)]).mean(dim=1)


def find_outliers(scores: Tensor, contamination: float = 0.05) -> Tensor:
    """Indices of the tokens strictly above the (1 - contamination) quantile of the scores, ascending."""
    return (scores > torch.quantile(scores, 1 - contamination)).nonzero().flatten()


def repair_outliers(
    tokens: Tensor, outliers: Tensor, height: int, width: int, *, rows_by_height: bool = False
) -> Tensor:
    """Each outlier replaced by the mean of those of its eight neighbours that are none; kept if it has no such.

    Args:
        tokens: (N, D) in row-major order, N = height * width.
        outliers: indices.
        rows_by_height: quirk of the published code: the place of patch i is taken for row i // height, column
            i % height. Other patches are then repaired wherever the grid is not square.

    Raises:
        UsageError: with `rows_by_height`, a place outside the grid, where the published code fails as well.
    """
    line = height if rows_by_height else width
    y, x = outliers // line, outliers % line
    if len(outliers) and (int(y.max()) >= height or int(x.max()) >= width):
        raise UsageError(
            f'scclip: a patch lies outside the grid of {height} x {width} as preset "reference" reads it; use square '
            "windows or the default preset"
        )
    good = torch.ones(1, height, width, dtype=tokens.dtype, device=tokens.device)
    good[0, y, x] = 0
    grid = tokens.T.unflatten(1, (height, width))
    weights = tokens.new_ones(1, 1, 3, 3)
    weights[..., 1, 1] = 0
    total = F.conv2d((grid * good)[:, None], weights, padding=1)[:, 0]
    count = F.conv2d(good[None], weights, padding=1)[0, 0]
    mendable = count[y, x] > 0
    y, x = y[mendable], x[mendable]
    repaired = grid.clone()
    repaired[:, y, x] = total[:, y, x] / count[y, x]
    return repaired.flatten(1).T.contiguous()

"""Regions of an image from the correlations of its patches (CLIPtrase, arXiv 2407.08268, sections 3.2 and 3.3)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from sklearn import config_context
from sklearn.cluster import DBSCAN
from torch import Tensor

from wsss.dense.logits import PatchField, WordMaps, row_chunks
from wsss.maps.parts import row_parts

NOISE = -1
ENLARGEMENT, MEDIAN_SIZE = 4, 7  # of a region's map before it is compared with the others'
DISTANCE_MIB = 256  # of clustering at a time
CHUNK_BYTES = 2**27


def correlation_factors(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """F whose F F^t is the mean, over heads and over q, k and v, of cosines between tokens.

    Args:
        q, k, v: (heads, T, d).

    Returns:
        (T, 3 * heads * d) fp32.
    """
    unit = torch.stack([F.normalize(part.float(), dim=-1) for part in (q, k, v)])
    return unit.permute(2, 0, 1, 3).flatten(1) / (3 * q.shape[0]) ** 0.5


def patch_correlations(factors: Tensor) -> Tensor:
    """Correlations between patches, less those with [CLS], negative ones 0: (1 + N, ...) -> (N, N)."""
    patches = factors[1:]
    own = factors[0] @ patches.T
    result = torch.empty(len(patches), len(patches), device=factors.device)
    for part in row_parts(len(patches), len(patches)):
        result[part] = (patches[part] @ patches.T - own).relu_()
    return result


def cluster_patches(correlations: Tensor, eps: float, min_samples: int) -> np.ndarray:
    """DBSCAN on the rows: cluster of every patch, (N,) int64, -1 for noise. In fp32: near ties may flip below it."""
    with config_context(working_memory=DISTANCE_MIB):
        found = DBSCAN(eps=eps, min_samples=min_samples).fit_predict(correlations.cpu().numpy())
    return np.asarray(found, np.int64)


def region_maps(correlations: Tensor, clusters: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """How much every place correlates with each cluster: enlarged, then smoothed by a median, (C, 4 h, 4 w) fp32."""
    rows = [correlations[torch.from_numpy(clusters == one)].mean(dim=0) for one in range(clusters.max() + 1)]
    maps = torch.stack(rows).unflatten(1, grid)[None]
    large = F.interpolate(maps, scale_factor=ENLARGEMENT, mode="bilinear", align_corners=False)[0].cpu().numpy()
    # scipy's "reflect" repeats the edge pixel.
    smooth = np.stack([median_filter(one, size=MEDIAN_SIZE, mode="reflect") for one in large])
    return torch.from_numpy(smooth).to(correlations.device)


def region_of_pixels(maps: Tensor, height: int, width: int) -> Tensor:
    """The cluster that every pixel correlates most with, (H, W) int64."""
    field = PatchField(maps, height, width)
    return torch.cat([field.rows(*rows).argmax(dim=0) for rows in row_chunks(field, CHUNK_BYTES)])


class RegionField:
    """Logits that are the same all over a region.

    Args:
        regions: of every pixel, (H, W) int64.
        table: logits of the words in every region, (Q, R) fp32.
    """

    def __init__(self, regions: Tensor, table: Tensor):
        self.regions, self.table = regions, table
        self.count = table.shape[0]
        self.height, self.width = regions.shape

    @property
    def device(self) -> torch.device:
        """See `LogitField.device`."""
        return self.table.device

    def rows(self, first: int, last: int, names: slice = slice(None)) -> Tensor:
        """See `LogitField.rows`."""
        return self.table[names][:, self.regions[first:last]]


def mean_logits(maps: WordMaps, regions: Tensor) -> Tensor:
    """Mean cosine of every word over the pixels of each region, (Q, R); 0 for a region without pixels."""
    field = PatchField(maps.cosines, maps.height, maps.width)
    count = int(regions.max()) + 1
    total = torch.zeros(field.count, count, device=regions.device)
    for first, last in row_chunks(field, CHUNK_BYTES):
        total.index_add_(1, regions[first:last].flatten(), field.rows(first, last).flatten(1))
    return total / regions.flatten().bincount(minlength=count).clamp(min=1)


def vote_shares(maps: WordMaps, regions: Tensor) -> Tensor:
    """Share of each region's pixels whose best word is one of a label's, at the label's first word: (Q, R).

    The largest share of a region is its most frequent label, of equals the one whose words come first.
    """
    field = PatchField(maps.cosines, maps.height, maps.width)
    count = int(regions.max()) + 1
    _, inverse = maps.labels.unique(return_inverse=True)
    first_words = torch.stack([(inverse == one).nonzero()[0, 0] for one in range(int(inverse.max()) + 1)])
    speaker = first_words[inverse]
    votes = torch.zeros(field.count * count, device=regions.device)
    for first, last in row_chunks(field, CHUNK_BYTES):
        words = speaker[field.rows(first, last).argmax(dim=0)]
        places = (words * count + regions[first:last]).flatten()
        votes += places.bincount(minlength=len(votes))
    return votes.view(field.count, count) / regions.flatten().bincount(minlength=count).clamp(min=1)

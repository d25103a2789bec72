"""Class-aware attention affinity (CAA, CLIP-ES section 3.4): attention between patches spreads and cleans the CAMs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Propagation:
    """The symmetric, doubly normalised affinity T of one image, kept as scaling factors instead of a matrix.

    T = (S + S^t) / 2 with S = diag(rows) attention diag(columns). Sinkhorn's normalisations only ever rescale rows
    and columns, so two vectors hold them: no N x N matrix is written, and T T is never formed.

    Attributes:
        attention: mean head-averaged attention between patches, (N, N).
        rows, columns: (N,) positive factors.
    """

    attention: Tensor
    rows: Tensor
    columns: Tensor

    def __call__(self, maps: Tensor) -> Tensor:
        """T applied to each map, (K, N) -> (K, N)."""
        forward = ((maps * self.columns) @ self.attention.T) * self.rows
        backward = ((maps * self.rows) @ self.attention) * self.columns
        return (forward + backward) / 2


def sinkhorn(attention: Tensor, rounds: int = 3) -> Propagation:
    """Divide by column sums, then by row sums, `rounds` times, then make symmetric.

    Args:
        attention: (N, N), not negative, floating point; every row and column has a positive sum.
    """
    rows = torch.ones(attention.shape[0], dtype=attention.dtype, device=attention.device)
    columns = torch.ones_like(rows)
    for _ in range(rounds):
        columns = 1 / (rows @ attention)
        rows = 1 / (attention @ columns)
    return Propagation(attention, rows, columns)


def refine_cams(cams: Tensor, boxes: Tensor, propagation: Propagation, *, propagations: int = 2) -> Tensor:
    """T(T(B_k * cam_k)) for all classes at once.

    Args:
        cams: class activation maps in [0, 1], (K, h, w).
        boxes: 1 inside the boxes of each map, else 0, (K, h, w), bool or float.
        propagation: of the same image, N = h * w.

    Returns:
        Refined maps, (K, h, w), not yet scaled to [0, 1].
    """
    maps = (cams * boxes).flatten(1)
    for _ in range(propagations):
        maps = propagation(maps)
    return maps.reshape(cams.shape)

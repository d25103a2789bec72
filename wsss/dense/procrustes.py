"""Orthogonal alignment of keys with queries (PEARL, arXiv 2603.21528, section "Procrustes alignment")."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def centred_by_queries(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys less their means, each token weighted by the norm of its query, [CLS] by 0.

    Args:
        q, k: (..., T, d), [CLS] first.
    """
    weights = q.norm(dim=-1, keepdim=True)
    weights = torch.cat([torch.zeros_like(weights[..., :1, :]), weights[..., 1:, :]], dim=-2)
    weights = weights / (weights.sum(dim=-2, keepdim=True) + 1e-6)
    return q - (weights * q).sum(dim=-2, keepdim=True), k - (weights * k).sum(dim=-2, keepdim=True)


def alignment(correlation: Tensor, steps: int = 5, solver: Literal["newton-schulz", "svd"] = "newton-schulz") -> Tensor:
    """The rotation that is nearest to a matrix: M (M^t M)^(-1/2), (..., d, d) -> (..., d, d).

    Args:
        correlation: M.
        steps: Newton-Schulz steps. The published five are far from converged, and part of the method.
        solver: "svd" gives U V^t, the exact one.
    """
    if solver == "svd":
        left, _, right = torch.linalg.svd(correlation)
        return left @ right
    identity = torch.eye(correlation.shape[-1], dtype=correlation.dtype, device=correlation.device)
    square = correlation.transpose(-2, -1) @ correlation
    norm = torch.linalg.matrix_norm(square, keepdim=True) + 1e-6
    value, inverse = square / norm + 1e-6 * identity, identity.expand_as(square)
    for _ in range(steps):
        factor = (3 * identity - inverse @ value) / 2
        value, inverse = value @ factor, factor @ inverse
    return correlation @ (inverse / norm.sqrt())

"""Attention primitives of the strategies, beside those of `tagclip.clip.attention`. T = 1 + N tokens, [CLS] first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.clip.attention import merge_heads


def attend_head_mean(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Every head attends with the mean of all heads' maps softmax(queries keys^T / sqrt(d)).

    Args:
        queries, keys, values: (B, heads, T, d).

    Returns:
        (B, T, width), heads merged.
    """
    heads, scale = queries.shape[1], queries.shape[-1] ** -0.5
    # One head at a time: T x T of all heads together is gigabytes on large images.
    mean = sum((queries[:, head] * scale @ keys[:, head].transpose(-2, -1)).softmax(dim=-1) for head in range(heads))
    return merge_heads((mean / heads).unsqueeze(1) @ values)


def patch_gaussian(height: int, width: int, std: float, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """exp(-distance^2 / (2 std^2)) between patches, in patches; zero in the row and column of [CLS].

    Returns:
        (1+N, 1+N) with N = height * width.
    """
    along_y = _gaussian_1d(height, std, device)
    along_x = _gaussian_1d(width, std, device)
    # exp of a sum of squares is a product: two small matrices instead of N x N distances.
    return F.pad(torch.kron(along_y, along_x), (1, 0, 1, 0)).to(dtype)


def _gaussian_1d(count: int, std: float, device: torch.device) -> Tensor:
    position = torch.arange(count, device=device, dtype=torch.float32)
    return torch.exp(-((position[:, None] - position[None, :]) ** 2) / (2 * std**2))

"""Head-averaged attention maps by Triton: no map of a single head is ever written to the accelerator's memory.

Two kernels. The first sums up each row of each head, the second computes the scores anew, tile by tile, and adds the
heads up in registers. What the plain way moves, `heads` maps of T x T written, read and written again, is never moved;
and tokens need not be a multiple of 8, which the fast matrix products of libraries insist on.

Imported where it is used: Triton comes with PyTorch for CUDA, and not everywhere else.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

QUERIES, KEYS = 64, 64  # tokens of a tile


@triton.jit
def _log_sums(
    q, k, sums, tokens, heads, scale, q_image, q_head, q_token, k_image, k_head, k_token,
    SIZE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """sums[image, head, row] = log2 of the sum of 2 ** score over the row's keys."""
    image, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    parts = tl.arange(0, SIZE)
    queries = tl.load(
        q + image.to(tl.int64) * q_image + head * q_head + rows[:, None] * q_token + parts[None, :],
        mask=rows[:, None] < tokens, other=0.0,
    )  # fmt: skip
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    for start in range(0, tokens, KEYS):
        columns = start + tl.arange(0, KEYS)
        keys = tl.load(
            k + image.to(tl.int64) * k_image + head * k_head + columns[None, :] * k_token + parts[:, None],
            mask=columns[None, :] < tokens, other=0.0,
        )  # fmt: skip
        scores = tl.dot(queries, keys, input_precision="ieee") * scale
        scores = tl.where(columns[None, :] < tokens, scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        total = total * tl.exp2(highest - higher) + tl.sum(tl.exp2(scores - higher[:, None]), 1)
        highest = higher
    tl.store(sums + tl.program_id(1).to(tl.int64) * tokens + rows, highest + tl.log2(total), mask=rows < tokens)


@triton.jit
def _mean_tile(
    q, k, sums, out, tokens, heads, scale, q_image, q_head, q_token, k_image, k_head, k_token,
    SIZE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """out[image, row - 1, column - 1] = mean over heads of the attention of token `row` to token `column`."""
    image = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    columns = tl.program_id(1) * KEYS + tl.arange(0, KEYS)
    parts = tl.arange(0, SIZE)
    total = tl.zeros((QUERIES, KEYS), tl.float32)
    for head in range(0, heads):
        queries = tl.load(
            q + image * q_image + head * q_head + rows[:, None] * q_token + parts[None, :],
            mask=rows[:, None] < tokens, other=0.0,
        )  # fmt: skip
        keys = tl.load(
            k + image * k_image + head * k_head + columns[None, :] * k_token + parts[:, None],
            mask=columns[None, :] < tokens, other=0.0,
        )  # fmt: skip
        row_sums = tl.load(sums + (image * heads + head) * tokens + rows, mask=rows < tokens, other=0.0)
        total += tl.exp2(tl.dot(queries, keys, input_precision="ieee") * scale - row_sums[:, None])
    patches = tokens - 1
    inside = (rows[:, None] > 0) & (rows[:, None] < tokens) & (columns[None, :] > 0) & (columns[None, :] < tokens)
    places = image * patches * patches + (rows[:, None] - 1) * patches + columns[None, :] - 1
    tl.store(out + places, total / heads, mask=inside)


def mean_maps(q: Tensor, k: Tensor) -> Tensor:
    """Mean over heads of softmax(q k^T / sqrt(d)), without the row and the column of [CLS].

    Args:
        q, k: (B, heads, T, d), the last dimension contiguous; d a power of two from 16 to 128.

    Returns:
        (B, T - 1, T - 1) float32.
    """
    batch, heads, tokens, size = q.shape
    sums = torch.empty(batch, heads, tokens, dtype=torch.float32, device=q.device)
    out = torch.empty(batch, tokens - 1, tokens - 1, dtype=torch.float32, device=q.device)
    scale = size**-0.5 * math.log2(math.e)
    strides = (*q.stride()[:3], *k.stride()[:3])
    tiles = {"SIZE": size, "QUERIES": QUERIES, "KEYS": KEYS}
    across, down = triton.cdiv(tokens, QUERIES), triton.cdiv(tokens, KEYS)
    _log_sums[(across, batch * heads)](q, k, sums, tokens, heads, scale, *strides, **tiles)
    _mean_tile[(across, down, batch)](q, k, sums, out, tokens, heads, scale, *strides, **tiles)
    return out

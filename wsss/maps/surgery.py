"""Static visual calibration and feature surgery: patch-text maps without a gradient (ExCEL, arXiv 2503.20826).

The dual path is that of CLIP Surgery (arXiv 2304.05653): beside the ordinary blocks a second stream of tokens collects
what query-query, key-key and value-value attention of those blocks give.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.clip import FrozenCLIP, attention
from wsss.config import ExcelConfig
from wsss.maps.parts import row_parts


def self_attention(q: Tensor, k: Tensor, v: Tensor, mixing: str) -> Tensor:
    """Mean of softmax(QQ), softmax(KK) and softmax(VV), times V, of one image.

    Args:
        q, k, v: (heads, T, d).
        mixing: "each" keeps heads apart, "mean" gives every head the mean of all heads' maps, "sum" their sum.

    Returns:
        (T, heads * d), heads merged.
    """
    if mixing == "each":
        parts = [attention.attend(part[None], part[None], v[None]) for part in (q, k, v)]
        return (parts[0] + parts[1] + parts[2])[0] / 3
    heads, count, size = q.shape
    merged = attention.merge_heads(v[None])[0]
    result = torch.empty_like(merged)
    for part in row_parts(count, count):
        weights = torch.zeros(part.stop - part.start, count, dtype=v.dtype, device=v.device)
        for tokens in (q, k, v):
            for head in tokens:
                weights += (head[part] * size**-0.5 @ head.T).softmax(dim=-1)
        result[part] = weights / (3 if mixing == "sum" else 3 * heads) @ merged
    return result


@torch.no_grad()
def surgery_tokens(clip: FrozenCLIP, inputs: Mapping[int, Tensor], tokens: Tensor, config: ExcelConfig) -> Tensor:
    """Tokens of the second stream after ln_post and projection, [CLS] that of the ordinary stream.

    Args:
        inputs: block number -> input tokens of one image, (1 + N, width), of the last `config.blocks` blocks but one.
        tokens: input of the last block, (1 + N, width).

    Returns:
        (1 + N, D) fp32, not of unit norm.
    """
    first = clip.depth - config.blocks + 1
    streams = {**inputs, clip.depth: tokens}
    calibrated = streams[first]
    for number in range(first, clip.depth + 1):
        block = clip.blocks[number - 1]
        q, k, v = attention.qkv(streams[number][None], block)
        mixed = self_attention(q[0], k[0], v[0], config.heads)
        calibrated = calibrated + attention.out_project(mixed[None], block)[0]
    ordinary = clip.last_block(tokens[None])[0, :1]
    return clip.project(torch.cat([ordinary, calibrated[1:]])).float()


def normalise_tokens(tokens: Tensor, over_tokens: bool) -> Tensor:
    """Unit norm over the channels of each token; or, a quirk of the published code, over the tokens of each channel."""
    return F.normalize(tokens, dim=0 if over_tokens else -1)


def patch_text_maps(features: Tensor, rows: Tensor) -> Tensor:
    """Feature surgery: how much more a patch says one class than all classes on average, scaled to [0, 1].

    Products of a patch and a class are weighted by how probable the class is for [CLS]; what all classes share is
    taken off. Summed over channels that is a similarity less its mean over the classes.

    Args:
        features: (1 + N, D), [CLS] first.
        rows: unit-norm text rows of all classes and background words, (Q, D).

    Returns:
        (Q, N) fp32 in [0, 1], of each class 0 and 1 at the lowest and highest of all tokens, [CLS] included.
    """
    weights = (2 * features[0] @ rows.T).softmax(dim=-1)
    weighted = features @ rows.T * (weights / weights.mean())
    scores = (weighted - weighted.mean(dim=-1, keepdim=True)).T
    low, high = scores.amin(dim=1, keepdim=True), scores.amax(dim=1, keepdim=True)
    return ((scores - low) / (high - low).clamp(min=torch.finfo(scores.dtype).tiny))[:, 1:]

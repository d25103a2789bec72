"""The training-free family of section 4: unit-norm patch features (N, D) under each attention of the last block(s)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.oracle.model import OracleCLIP


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """softmax(a b^T / sqrt(d)) per head."""
    return (a @ b.transpose(-2, -1) / math.sqrt(a.shape[-1])).softmax(dim=-1)


def patch_gaussian(height: int, width: int, std: float = 5.0) -> Tensor:
    """exp(-distance^2 / (2 std^2)) between patches, (1+N, 1+N), zero on the [CLS] row and column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([rows.flatten(), columns.flatten()], dim=-1).float()
    distance = ((at[:, None] - at[None, :]) ** 2).sum(dim=-1)
    bias = torch.zeros(1 + height * width, 1 + height * width)
    bias[1:, 1:] = torch.exp(-distance / (2 * std**2))
    return bias


def finish(clip: OracleCLIP, x: Tensor, mixed: Tensor, residual: bool, mlp: bool) -> Tensor:
    """Output projection, residual and MLP as asked, ln_post, projection; patches only, unit norm (N, D)."""
    prefix = clip.visual_prefix(clip.depth)
    tokens = clip.out_proj(mixed, prefix)
    if residual:
        tokens = x + tokens
    if mlp:
        tokens = tokens + clip.mlp(tokens, prefix)
    return F.normalize(clip.project(tokens)[1:], dim=-1)


def suppressed(weight: Tensor) -> Tensor:
    """c_proj.weight (W, 4W) with the row of the largest L2 norm rescaled to the mean norm of the other rows."""
    norms = weight.norm(dim=1)
    row = int(norms.argmax())
    others = torch.cat([norms[:row], norms[row + 1 :]]).mean()
    weight = weight.clone()
    weight[row] = weight[row] / norms[row] * others
    return weight


def gclip_features(clip: OracleCLIP, image: Tensor, pair: tuple[int, int] = (6, 7), first: int = 7) -> Tensor:
    """GCLIP: attention map fusion per head and channel suppression in blocks `first`..L-1 (our reading)."""
    changed = OracleCLIP.__new__(OracleCLIP)
    changed.__dict__.update(clip.__dict__)
    changed.p = dict(clip.p)
    for number in range(first, clip.depth):
        name = clip.visual_prefix(number) + ".mlp.c_proj.weight"
        changed.p[name] = suppressed(clip.p[name])
    x, _ = changed.embed(image, "none")
    fused = 0
    for number in range(1, clip.depth):
        x, attention = changed.visual_block(x, number)
        if number in pair:
            fused = fused + attention
    prefix = clip.visual_prefix(clip.depth)
    q, _, v = changed.qkv(changed._norm(x, prefix + ".ln_1"), prefix, clip.heads)
    fused = (fused + similarity(q, q)) / 3
    return finish(changed, x, fused @ v, residual=False, mlp=False)


@torch.no_grad()
def dense_features(clip: OracleCLIP, image: Tensor, strategy: str) -> Tensor:
    """(3, H, W) normalised image -> (N, D) unit norm.

    Strategies: clip, maskclip, sclip, clearclip, kk (naclip without its Gaussian), naclip, gclip, tagclip-local.
    """
    if strategy == "gclip":
        return gclip_features(clip, image)
    x, _, grid = clip.trunk(image, "none")
    prefix = clip.visual_prefix(clip.depth)
    q, k, v = clip.qkv(clip._norm(x, prefix + ".ln_1"), prefix, clip.heads)
    if strategy == "clip":
        return finish(clip, x, similarity(q, k) @ v, residual=True, mlp=True)
    if strategy == "maskclip":
        return finish(clip, x, v, residual=False, mlp=False)
    if strategy == "sclip":
        return finish(clip, x, (similarity(q, q) + similarity(k, k)) @ v, residual=True, mlp=True)
    if strategy == "clearclip":
        return finish(clip, x, similarity(q, q) @ v, residual=False, mlp=False)
    if strategy == "kk":
        return finish(clip, x, similarity(k, k) @ v, residual=False, mlp=False)
    if strategy == "naclip":
        logits = k @ k.transpose(-2, -1) / math.sqrt(k.shape[-1]) + patch_gaussian(*grid)
        return finish(clip, x, logits.softmax(dim=-1) @ v, residual=False, mlp=False)
    if strategy == "tagclip-local":
        return finish(clip, x, v, residual=True, mlp=True)
    raise ValueError(f"unknown strategy {strategy!r}")

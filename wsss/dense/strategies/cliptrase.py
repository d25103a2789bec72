"""cliptrase: query, key and value attention of the last block summed, and one class for each region of patches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor

from tagclip.clip import DINO_POSITIONS, attention
from tagclip.clip.attention import attend
from tagclip.errors import UsageError
from wsss.dense.logits import LogitField, PatchField, WordMaps
from wsss.dense.regions import (
    RegionField,
    cluster_patches,
    correlation_factors,
    mean_logits,
    patch_correlations,
    region_maps,
    region_of_pixels,
    vote_shares,
)
from wsss.dense.strategy import Context, Needs, Strategy

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP, Trunk


@dataclass(frozen=True)
class CliptraseOptions:
    """Constants of CLIPtrase.

    Attributes:
        regions: decide on whole regions; False decides pixel by pixel.
        decision: a region takes the word of the best mean logit ("mean", as the published code does on whole images)
            or its pixels' most frequent one ("vote", as published for centre crops).
        eps, min_samples: of DBSCAN. None: 0.05 sqrt(N) and N / 64 rounded, N the patches of one model input (ours; a
            fit to the two published pairs, 0.7 and 3 at 224 pixels, 1.1 and 7 at 336).
        block: whose queries, keys and values say which patches are alike; None: the last but one.
        class_prior: multiply each word's cosines by its cosine with [CLS] (published for VOC20 alone).
        dino_positions: quirk, see `tagclip.clip.encoder.DINO_POSITIONS`.
    """

    regions: bool = True
    decision: Literal["mean", "vote"] = "mean"
    eps: float | None = None
    min_samples: int | None = None
    block: int | None = None
    class_prior: bool = False
    dino_positions: bool = False


def needs(options: CliptraseOptions, depth: int) -> Needs:
    """The input of the block whose correlations are recovered."""
    if options.decision not in ("mean", "vote"):
        raise UsageError(f'cliptrase: decision={options.decision!r}; choose "mean" or "vote"')
    keep = (options.block or depth - 1,) if options.regions else ()
    return Needs(keep=keep, positions=DINO_POSITIONS if options.dino_positions else None)


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: CliptraseOptions) -> Tensor:
    """(softmax(QQ) + softmax(KK) + softmax(VV)) V. The sum is not divided: rows of the map sum to 3."""
    return attend(q, q, v) + attend(k, k, v) + attend(v, v, v)


def decide(clip: FrozenCLIP, trunk: Trunk, maps: WordMaps, options: CliptraseOptions) -> LogitField | None:
    """Logits of the regions of one input; of its pixels where it has no region, or None where nothing changes them."""
    if options.class_prior:
        maps = dataclasses.replace(maps, cosines=maps.cosines * class_logits(clip, trunk, maps.rows)[:, None, None])
    pixels = PatchField(maps.cosines, maps.height, maps.width) if options.class_prior else None
    if not options.regions:
        return pixels
    correlations = patch_correlations(input_factors(clip, trunk, options))
    eps, min_samples = density(options, trunk.grid.count)
    clusters = cluster_patches(correlations, eps, min_samples)
    if clusters.max() < 0:  # all patches are noise
        return pixels
    smooth = region_maps(correlations, clusters, (trunk.grid.height, trunk.grid.width))
    del correlations
    regions = region_of_pixels(smooth, maps.height, maps.width)
    return RegionField(regions, (mean_logits if options.decision == "mean" else vote_shares)(maps, regions))


def input_factors(clip: FrozenCLIP, trunk: Trunk, options: CliptraseOptions) -> Tensor:
    """`correlation_factors` of one image's trunk."""
    number = options.block or clip.depth - 1
    q, k, v = attention.qkv(trunk.kept[number], clip.blocks[number - 1])
    return correlation_factors(q[0], k[0], v[0])


def density(options: CliptraseOptions, count: int) -> tuple[float, int]:
    """DBSCAN's eps and min_samples for so many patches."""
    eps = 0.05 * count**0.5 if options.eps is None else options.eps
    return eps, max(1, round(count / 64)) if options.min_samples is None else options.min_samples


def class_logits(clip: FrozenCLIP, trunk: Trunk, rows: Tensor) -> Tensor:
    """Logits of [CLS] after the changed last block, (Q,)."""
    block = clip.blocks[-1]
    q, k, v = attention.qkv(trunk.tokens, block)
    output = trunk.tokens + attention.out_project(mix(q, k, v, Context(trunk.grid), CliptraseOptions()), block)
    output = output[:, :1] + attention.mlp(output[:, :1], block)
    return clip.logit_scale * F.normalize(clip.project(output[0, 0]).float(), dim=-1) @ rows.T


STRATEGY = Strategy(
    "cliptrase",
    mix,
    residual=True,
    mlp=True,
    options=CliptraseOptions(),
    needs=needs,
    decide=decide,
    reference={"decision": "vote", "eps": 0.7, "min_samples": 3, "dino_positions": True},
    source="CLIPtrase, arXiv 2407.08268",
)

"""pearl: keys rotated towards the queries before they attend, and some key-key attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tagclip.clip import DINO_POSITIONS
from tagclip.clip.attention import attend
from wsss.dense.procrustes import alignment, centred_by_queries
from wsss.dense.strategy import Context, Needs, Strategy


@dataclass(frozen=True)
class PearlOptions:
    """Constants of PEARL's alignment. Its propagation is a refinement of any strategy: `DenseConfig.propagation`.

    Attributes:
        align: rotate the keys of each head towards its queries; False is the ordinary softmax(QK).
        alpha: weight of the centred key-key attention; published 0.08, and 0.3 on ADE20K and Cityscapes.
        steps, solver: see `wsss.dense.procrustes.alignment`.
        dino_positions: quirk, see `tagclip.clip.encoder.DINO_POSITIONS`.
    """

    align: bool = True
    alpha: float = 0.08
    steps: int = 5
    solver: Literal["newton-schulz", "svd"] = "newton-schulz"
    dino_positions: bool = False


def needs(options: PearlOptions, depth: int) -> Needs:
    """Nothing but its way to interpolate positions."""
    return Needs(positions=DINO_POSITIONS if options.dino_positions else None)


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: PearlOptions) -> Tensor:
    """softmax((Q (K R)^t + alpha K_c K_c^t) / sqrt(d)) V, R the rotation of centred keys onto centred queries."""
    if not options.align:
        return attend(q, k, v)
    aligned_q, aligned_k = logit_factors(q, k, options)
    # `attend` divides by the root of the doubled width.
    return attend(aligned_q * 2**0.5, aligned_k, v)


def logit_factors(q: Tensor, k: Tensor, options: PearlOptions) -> tuple[Tensor, Tensor]:
    """Two (B, heads, T, 2 d) whose product, divided by sqrt(d), is the logits: no T x T matrix is written."""
    full_q, full_k = q.float(), k.float()
    centred_q, centred_k = centred_by_queries(full_q, full_k)
    rotation = alignment(centred_k.transpose(-2, -1) @ centred_q, options.steps, options.solver)
    left = torch.cat([full_q, options.alpha * centred_k], dim=-1)
    right = torch.cat([full_k @ rotation, centred_k], dim=-1)
    return left.to(q.dtype), right.to(k.dtype)


STRATEGY = Strategy(
    "pearl",
    mix,
    residual=False,
    mlp=False,
    options=PearlOptions(),
    needs=needs,
    reference={"dino_positions": True},
    source="PEARL, arXiv 2603.21528",
)

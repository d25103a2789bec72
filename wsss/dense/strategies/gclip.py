"""gclip: attention map fusion and channel suppression (GCLIP)."""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from tagclip.clip.attention import attend
from tagclip.errors import UsageError
from wsss.dense.attention import attend_head_mean
from wsss.dense.emergence import EmergenceConfig, find_global_token_blocks
from wsss.dense.strategy import Context, Needs, Strategy
from wsss.dense.suppression import suppression_scale

if TYPE_CHECKING:
    from tagclip.clip.encoder import FrozenCLIP


@dataclass(frozen=True)
class GclipOptions:
    """Constants of GCLIP. Where the publication leaves an index open, the value here is our reading of it.

    Attributes:
        blocks: the two "global-token emerging" blocks whose softmax(QK) is fused in. None: the middle pair
            (L/2, L/2 + 1), which is the published 6 and 7 on ViT-B/16; "auto": found on the image at hand
            (`find_global_token_blocks`), so that a run does not depend on the order of its images.
        heads: "each" fuses head by head (our reading: the publication does not say), "mean" gives every head the
            head-averaged maps.
        suppress: blocks whose MLP output has its abnormal channel rescaled. None: L/2 + 1 .. L-1, which is 7..11 on
            ViT-B/16; () leaves channel suppression out.
        min_ratio: a channel counts as abnormal if its row norm is at least this many times the mean norm of the
            others. 1 (published): the largest always does.
        emergence: settings of the search for "auto".
    """

    blocks: tuple[int, int] | Literal["auto"] | None = None
    heads: Literal["each", "mean"] = "each"
    suppress: tuple[int, ...] | None = None
    min_ratio: float = 1.0
    emergence: EmergenceConfig = field(default_factory=EmergenceConfig)


def prepare(clip: FrozenCLIP, images: Tensor, options: GclipOptions) -> GclipOptions:
    """Put block numbers in the place of None and "auto"."""
    if options.heads not in ("each", "mean"):
        raise UsageError(f'gclip: heads={options.heads!r}; choose "each" or "mean"')
    if options.blocks == "auto":
        blocks = find_global_token_blocks(clip, images, options.emergence)
    else:
        blocks = options.blocks or (clip.depth // 2, clip.depth // 2 + 1)
    suppress = tuple(range(clip.depth // 2 + 1, clip.depth)) if options.suppress is None else options.suppress
    return dataclasses.replace(options, blocks=blocks, suppress=suppress)


def needs(options: GclipOptions, depth: int) -> Needs:
    """Queries and keys of the pair; its own tokens from the first suppressed block on."""
    blocks = options.blocks if isinstance(options.blocks, tuple) else (depth // 2, depth // 2 + 1)
    suppress = tuple(range(depth // 2 + 1, depth)) if options.suppress is None else options.suppress
    return Needs(attention=blocks, restart=min(suppress) if suppress else None)


def run_block(clip: FrozenCLIP, number: int, tokens: Tensor, options: GclipOptions) -> Tensor:
    """Block `number` with channel suppression if it is one of those suppressed."""
    if number not in (options.suppress or ()):
        return clip.run_blocks(tokens, number, number)
    scale = suppression_scale(clip.blocks[number - 1], options.min_ratio)
    return clip.run_blocks(tokens, number, number, mlp_scales={number: scale})


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: GclipOptions) -> Tensor:
    """(sum over the pair of softmax(QK) + softmax(QQ)) / (pair + 1) V."""
    fuse = attend if options.heads == "each" else attend_head_mean
    maps = [*context.earlier.values(), (q, q)]
    return reduce(operator.add, (fuse(*pair, v) for pair in maps)) / len(maps)


STRATEGY = Strategy(
    "gclip",
    mix,
    residual=False,
    mlp=False,
    options=GclipOptions(),
    needs=needs,
    run_block=run_block,
    prepare=prepare,
    source="GCLIP, arXiv 2502.06818, attention map fusion and channel suppression",
)

"""Where global tokens emerge: the blocks from which on a few patches receive most of the attention (GCLIP)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tagclip.clip import attention
from tagclip.clip.encoder import AttentionRequest, FrozenCLIP
from tagclip.precision import exact_float32


@dataclass(frozen=True)
class EmergenceConfig:
    """How the global-token blocks are found. The publication reads them off a plot; these numbers are ours.

    Attributes:
        strongest: share of the patches that count as "the strongest few" (at least one).
        jump: the attention they receive has jumped once it is this many times the median over the blocks before.
        skip_first: blocks at the start that are never chosen, because there is nothing to compare them with.
    """

    strongest: float = 0.01
    jump: float = 2.0
    skip_first: int = 2


@torch.no_grad()
@exact_float32()
def attention_received(clip: FrozenCLIP, images: Tensor) -> Tensor:
    """Attention that every patch receives from the patches, block by block.

    Args:
        images: normalised, (B, 3, H, W).

    Returns:
        (B, L, N) fp32: mean over heads and sending patches of the head-averaged map without its [CLS] row and
        column, times N, so that 1 is an even share (a little less, [CLS] takes the rest).
    """
    trunk = clip.trunk(images, AttentionRequest(keep=tuple(range(1, clip.depth + 1))))
    received = torch.zeros(images.shape[0], clip.depth, trunk.grid.count, device=trunk.tokens.device)
    for number in range(1, clip.depth + 1):
        q, k, _ = attention.qkv(trunk.kept[number], clip.blocks[number - 1])

        def receive(images: slice, weights: Tensor, row: int = number - 1) -> None:
            received[images, row] = weights.sum(dim=1)

        attention.attend_with_maps(q, k, None, receive)
    return received


def strongest_received(received: Tensor, share: float) -> Tensor:
    """Mean attention received by the strongest patches of each block, averaged over images: (B, L, N) -> (L,)."""
    few = max(1, round(share * received.shape[-1]))
    return received.topk(few, dim=-1).values.mean(dim=(0, 2))


def global_token_blocks(strength: Tensor, config: EmergenceConfig | None = None) -> tuple[int, int]:
    """The first block at which `strength` jumps, and the one after it.

    Args:
        strength: attention received by the strongest few patches, (L,).

    Returns:
        Two 1-based block numbers below L. Where nothing jumps by `config.jump`, the block with the largest relative
        rise is taken.
    """
    config = config or EmergenceConfig()
    depth = len(strength)
    candidates = list(range(min(config.skip_first + 1, depth - 2), depth - 1))
    rises = [float(strength[number - 1] / strength[: number - 1].median()) for number in candidates]
    jumped = [number for number, rise in zip(candidates, rises, strict=True) if rise >= config.jump]
    first = jumped[0] if jumped else candidates[rises.index(max(rises))]
    return first, first + 1


def find_global_token_blocks(
    clip: FrozenCLIP, images: Tensor, config: EmergenceConfig | None = None
) -> tuple[int, int]:
    """The pair of global-token emerging blocks on these images (B, 3, H, W). See `global_token_blocks`."""
    config = config or EmergenceConfig()
    return global_token_blocks(strongest_received(attention_received(clip, images), config.strongest), config)

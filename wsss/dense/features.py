"""Trunk and strategy -> patch features."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.clip import attention
from tagclip.clip.encoder import AttentionRequest, FrozenCLIP, PositionInterpolation, Trunk
from tagclip.errors import UsageError
from tagclip.precision import exact_float32
from wsss.dense.strategy import Context, Strategy


@exact_float32()
def prepared(clip: FrozenCLIP, images: Tensor, strategy: Strategy) -> Strategy:
    """The strategy with everything filled in that depends on the model or the images (B, 3, H, W)."""
    if strategy.prepare is not None:
        strategy = dataclasses.replace(strategy, options=strategy.prepare(clip, images, strategy.options))
    strategy.check(clip.depth)
    return strategy


def blocks_to_keep(clip: FrozenCLIP, strategies: Iterable[Strategy]) -> tuple[int, ...]:
    """Blocks whose input tokens a shared trunk has to keep for these (prepared) strategies."""
    keep = set()
    for strategy in strategies:
        needs = strategy.needs(strategy.options, clip.depth)
        restart = clip.depth if needs.restart is None else needs.restart
        keep |= {number for number in needs.attention if number < restart}
        if needs.restart is not None:
            keep.add(needs.restart)
        keep |= set(needs.keep)
    return tuple(sorted(keep))


def positions_of(clip: FrozenCLIP, strategy: Strategy) -> PositionInterpolation | None:
    """How a strategy wants positional embeddings interpolated; None: as the model does."""
    return strategy.needs(strategy.options, clip.depth).positions


def own_stop(clip: FrozenCLIP, strategies: Iterable[Strategy]) -> int | None:
    """`FrozenCLIP.trunk(stop=...)` for a trunk that serves these strategies alone: the last block all restart at."""
    needed = [strategy.needs(strategy.options, clip.depth).restart for strategy in strategies]
    restarts = [block for block in needed if block is not None]
    return None if len(restarts) < len(needed) else max(restarts, default=None)


def merge_requests(*requests: AttentionRequest) -> AttentionRequest:
    """One request that serves everybody."""
    return AttentionRequest(
        votes=any(request.votes for request in requests),
        ranges=tuple(dict.fromkeys(span for request in requests for span in request.ranges)),
        keep=tuple(sorted({number for request in requests for number in request.keep})),
    )


@torch.no_grad()
@exact_float32()
def strategy_features(clip: FrozenCLIP, trunk: Trunk, strategy: Strategy) -> Tensor:
    """Patch features of a batch under one strategy.

    Blocks before `Needs.restart` come from the trunk, so that they are shared with the tagger and other strategies.

    Args:
        trunk: made with `keep=blocks_to_keep(clip, [strategy])` or more.
        strategy: prepared (see `prepared`).

    Returns:
        (B, N, D) fp32, unit norm.

    Raises:
        UsageError: a strategy that restarts at a block and does not say how blocks run.
    """
    if strategy.features is not None:
        return F.normalize(strategy.features(clip, trunk, strategy.options).float(), dim=-1)
    assert strategy.mix is not None  # one of the two is given
    needs = strategy.needs(strategy.options, clip.depth)
    inputs = dict(trunk.kept)
    tokens = trunk.tokens
    if needs.restart is not None:
        if strategy.run_block is None:
            raise UsageError(f"strategy {strategy.name}: it restarts at block {needs.restart} without a run_block")
        tokens = trunk.kept[needs.restart]
        for number in range(needs.restart, clip.depth):
            inputs[number] = tokens
            tokens = strategy.run_block(clip, number, tokens, strategy.options)
    earlier = {number: attention.qkv(inputs[number], clip.blocks[number - 1])[:2] for number in needs.attention}

    block = clip.blocks[-1]
    q, k, v = attention.qkv(tokens, block)
    mixed = strategy.mix(q, k, v, Context(trunk.grid, earlier), strategy.options)
    output = attention.out_project(mixed, block)
    if strategy.residual:
        output = tokens + output
    if strategy.mlp:
        output = output + attention.mlp(output, block)
    return F.normalize(clip.project(output[:, 1:]).float(), dim=-1)


@torch.no_grad()
def image_features(clip: FrozenCLIP, images: Tensor, strategy: Strategy) -> tuple[Tensor, Trunk]:
    """Features of normalised images (B, 3, H, W) with a trunk of their own: (B, N, D) fp32 unit norm, and the trunk."""
    strategy = prepared(clip, images, strategy)
    request = AttentionRequest(keep=blocks_to_keep(clip, [strategy]))
    trunk = clip.trunk(
        images, request, stop=own_stop(clip, [strategy]), interpolation=positions_of(clip, strategy)
    )
    return strategy_features(clip, trunk, strategy), trunk


def one_image(trunk: Trunk, index: int) -> Trunk:
    """The trunk of one image of a batch, its statistics left out."""
    part = slice(index, index + 1)
    return Trunk(trunk.tokens[part], trunk.grid, kept={number: kept[part] for number, kept in trunk.kept.items()})


@torch.no_grad()
def features_after_feedback(
    clip: FrozenCLIP, trunk: Trunk, images: Tensor | None, rows: Tensor, strategy: Strategy
) -> Tensor | None:
    """Patch features of a batch under a strategy whose features depend on the words.

    Args:
        trunk: of the images (B, 3, H, W); see `strategy_features`. Without the images, None, nothing is refined by
            their colours.
        rows: unit-norm text rows of the words that compete, (Q, D).

    Returns:
        (B, N, D) fp32, unit norm; None for a strategy without feedback, or without a word.
    """
    if strategy.feedback is None or not len(rows):
        return None
    # Image by image: what a word wins in one image has nothing to do with the others of the batch.
    found = [
        strategy.feedback(
            clip, one_image(trunk, index), None if images is None else images[index], rows, strategy.options
        )
        for index in range(len(trunk.tokens))
    ]
    kept = [one for one in found if one is not None]
    return F.normalize(torch.stack(kept).float(), dim=-1) if kept else None

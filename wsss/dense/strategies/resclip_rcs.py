"""resclip-rcs: the cross-correlation part of ResCLIP, on top of another strategy's attention."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tagclip.clip.attention import attend
from tagclip.errors import UsageError
from wsss.dense.strategy import Context, Needs, Strategy, get_strategy


@dataclass(frozen=True)
class ResclipRcsOptions:
    """Constants of the residual cross-correlation attention.

    Attributes:
        base: strategy whose attention is blended; only its attention counts, not its residual or MLP.
        weight: share of the cross-correlation; 0 is the base's attention alone.
        blocks: first and last block (inclusive) whose softmax(QK) is averaged; None: 6..9 on ViT-B/16 and the
            same relative depth on other models (ours: the publication gives ViT-B/16 only).
    """

    base: str = "naclip"
    weight: float = 0.5
    blocks: tuple[int, int] | None = None


def needs(options: ResclipRcsOptions, depth: int) -> Needs:
    """Queries and keys of the averaged blocks."""
    base = get_strategy(options.base)
    if base.mix is None or base.needs(base.options, depth) != Needs():
        raise UsageError(f"resclip-rcs: base {options.base!r} needs earlier blocks itself; choose one that does not")
    first, last = options.blocks or (depth // 2, depth * 3 // 4)
    return Needs(attention=tuple(range(first, last + 1)))


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: ResclipRcsOptions) -> Tensor:
    """((1 - weight) A_base + weight mean_l softmax(QK)_l) V, per head."""
    base = get_strategy(options.base)
    assert base.mix is not None  # see `needs`
    own = base.mix(q, k, v, context, base.options)
    crossed = sum(attend(*pair, v) for pair in context.earlier.values()) / len(context.earlier)
    return (1 - options.weight) * own + options.weight * crossed


STRATEGY = Strategy(
    "resclip-rcs",
    mix,
    residual=False,
    mlp=False,
    options=ResclipRcsOptions(),
    needs=needs,
    source="ResCLIP, arXiv 2411.15851, section 3.2 (for its second part, semantic feedback, see resclip)",
)

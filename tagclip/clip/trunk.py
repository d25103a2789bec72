"""What a trunk pass is asked for, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A patch grid; patches are in row-major order."""

    height: int
    width: int

    @property
    def count(self) -> int:
        """Number of patches N."""
        return self.height * self.width


@dataclass(frozen=True)
class AttentionRequest:
    """What later stages want from the attention maps of one trunk pass; nothing else is computed or kept.

    Attributes:
        votes: count, over all blocks 1..L, of [A_l > mean(A_l)]; A_l head-averaged, [CLS] row and column removed.
        ranges: 1-based inclusive block ranges whose mean map is needed, for example ((9, 11), (5, 12)).
        keep: 1-based blocks whose input tokens are needed, for strategies that restart from there.
    """

    votes: bool = False
    ranges: tuple[tuple[int, int], ...] = ()
    keep: tuple[int, ...] = ()

    def __or__(self, other: AttentionRequest) -> AttentionRequest:
        """What one trunk must collect to serve both."""
        ranges = tuple(dict.fromkeys(self.ranges + other.ranges))
        return AttentionRequest(self.votes or other.votes, ranges, tuple(sorted({*self.keep, *other.keep})))


@dataclass
class Trunk:
    """Blocks 1..L-1 of a batch, computed once for every stage.

    Attributes:
        tokens: input of the last block, [CLS] first, (B, 1 + N, width).
        grid: patch grid, N = grid.count.
        votes: (B, N, N) uint8 in 0..L, or None if not requested.
        affinity: block range -> mean head-averaged map, (B, N, N) fp32.
        kept: block number -> its input tokens, (B, 1 + N, width).
    """

    tokens: Tensor
    grid: Grid
    votes: Tensor | None = None
    affinity: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    kept: dict[int, Tensor] = field(default_factory=dict)

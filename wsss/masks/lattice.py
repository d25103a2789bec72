"""Gaussian filter over points of a few features: the permutohedral lattice (Adams, Baek and Davis 2010), on tensors.

Where the points lie is worked out once and kept as sparse matrices. To filter is then to multiply by one after the
other, on any device, with no loop over points and nothing that waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tagclip.errors import UsageError

POINTS_AT_ONCE = {"cpu": 1 << 15}  # whose simplices are found together: few stay in the processor's cache
POINTS_AT_ONCE_ELSEWHERE = 1 << 20
LONGEST_SUM = {"cpu": 4096}  # terms that one thread adds up; longer sums lose digits, and other threads wait for them
LONGEST_SUM_ELSEWHERE = 64
FARTHEST = 1 << 24  # feature: float32 has no fractions beyond, and cells would leave 32 bits
TOO_NARROW = "a Gaussian this narrow has more lattice cells than can be numbered; use larger deviations"
TABLE_VALUES = {"cpu": 1 << 23}  # of one step of a filter (32 MiB); more columns than fit are filtered in groups
TABLE_VALUES_ELSEWHERE = 1 << 26


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix, row by row.

    Attributes:
        columns: column of each entry, (E,) int32 or int64, row after row.
        offsets: where the rows begin and the last one ends, (R + 1,), same dtype.
        weights: the entries, (E,) float32.
    """

    columns: Tensor
    offsets: Tensor
    weights: Tensor

    def __matmul__(self, table: Tensor) -> Tensor:
        """The product with a (C, K) float32 table of contiguous rows, (R, K).

        Each row is added up by one thread in the order of its entries, so the sum is the same for any number of them.
        """
        return functional.embedding_bag(
            self.columns, table, self.offsets, mode="sum", per_sample_weights=self.weights, include_last_offset=True
        )

    def pieces(self, longest: int) -> list[SparseRows]:
        """Matrices of rows of at most `longest` entries, to be multiplied from the first to the last: the same product.

        A table cell that many points share (a plain background) has one very long row.
        """
        counts = self.offsets.diff()
        if not len(self.columns) or int(counts.max()) <= longest:
            return [self]
        pieces = (counts + longest - 1) // longest
        starts = functional.pad(pieces.cumsum(0, dtype=self.offsets.dtype), (1, 0))
        row = torch.repeat_interleave(pieces)
        inner = torch.arange(len(row), dtype=self.offsets.dtype, device=row.device)
        begins = self.offsets[row] + (inner - starts[row]) * longest
        first = SparseRows(self.columns, torch.cat([begins, self.offsets[-1:]]), self.weights)
        return [first, *SparseRows(inner, starts, torch.ones_like(inner, dtype=torch.float32)).pieces(longest)]


class PermutohedralLattice:
    """Filter with a Gaussian of standard deviation 1 between the features of N points, not normalised.

    Each point's values are spread over the corners of its simplex (splat), blurred along the d + 1 axes of the
    lattice, and gathered from the same corners (slice). Corners that no point touches hold nothing, as in the paper's
    hash table.

    Args:
        features: (N, d) float32, N and d at least 1.
        groups: (N,) int64 >= 0, None for one group: points of different groups (images) do not see each other.

    Attributes:
        points, vertices: N, and the number of corners.

    Raises:
        UsageError: the features span more cells than can be numbered, or are not finite.
    """

    def __init__(self, features: Tensor, groups: Tensor | None = None):
        self.points, dimensions = features.shape
        low, high = torch.aminmax(features)
        if not (low > -FARTHEST and high < FARTHEST):
            raise UsageError(TOO_NARROW)
        cells, axis_of_rank, weights = _simplices(features)
        code, strides, span = _number_cells(cells, groups)
        del cells
        splat, vertex, keys = _corners(code, axis_of_rank, weights, strides, span)
        self.vertices = len(keys)
        self._splat = splat.pieces(LONGEST_SUM.get(features.device.type, LONGEST_SUM_ELSEWHERE))
        self._blurs = _blurs(keys, strides.to(keys.dtype), span, vertex.dtype)
        ends = torch.arange(0, vertex.numel() + 1, dimensions + 1, dtype=vertex.dtype, device=vertex.device)
        self._slice = SparseRows(vertex.view(-1), ends, weights.view(-1).div_(1 + 2.0**-dimensions))

    def filter(self, values: Tensor) -> Tensor:
        """Every column filtered.

        Args:
            values: (N, K) float32.

        Returns:
            (N, K) float32; the same for a column whatever the others are, and for any number of threads.
        """
        most = TABLE_VALUES.get(values.device.type, TABLE_VALUES_ELSEWHERE)
        group = max(1, most // max(self.points, self.vertices))
        if values.shape[1] <= group:
            return self._filter(values.contiguous())
        out = torch.empty_like(values, memory_format=torch.contiguous_format)
        for start in range(0, values.shape[1], group):
            out[:, start : start + group] = self._filter(values[:, start : start + group].contiguous())
        return out

    def _filter(self, values: Tensor) -> Tensor:
        for step in (*self._splat, *self._blurs, self._slice):
            values = step @ values
        return values

    def scale(self, before: Tensor, after: Tensor) -> None:
        """From now on, values are multiplied by `before` (N,) on their way in and by `after` (N,) on their way out."""
        first = self._splat[0]
        first.weights.mul_(before.index_select(0, first.columns))
        self._slice.weights.view(self.points, -1).mul_(after[:, None])


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex around each point (section 3.1 of the paper), in parts that bound the memory.

    Returns:
        Its corner of remainder 0 divided by d + 1, without the last coordinate, (d, N) int32; which coordinate has
        which rank, (d + 1, N) uint8; weight of each corner, (N, d + 1) float32.
    """
    points, dimensions = features.shape
    device = features.device
    cells = torch.empty(dimensions, points, dtype=torch.int32, device=device)
    axis_of_rank = torch.empty(dimensions + 1, points, dtype=torch.uint8, device=device)
    weights = torch.empty(points, dimensions + 1, dtype=torch.float32, device=device)
    step = POINTS_AT_ONCE.get(device.type, POINTS_AT_ONCE_ELSEWHERE)
    for start in range(0, points, step):
        part = slice(start, start + step)
        cells[:, part], axis_of_rank[:, part], weights[part] = _simplices_of_part(features[part])
    return cells, axis_of_rank, weights


def _simplices_of_part(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    points, dimensions = features.shape
    corners = dimensions + 1
    elevated = _elevate(features)
    nearest = torch.round(elevated / corners)
    difference = elevated - nearest * corners
    rank = nearest.sum(0).to(torch.int32).repeat(corners, 1)  # off the plane by so many steps, which ranks make good
    for one in range(corners):
        for other in range(one + 1, corners):
            less = difference[one] < difference[other]
            rank[one] += less
            rank[other] += ~less
    wrap = (rank < 0).to(torch.int32) - (rank > dimensions).to(torch.int32)
    rank += wrap * corners
    nearest += wrap
    difference = (elevated - nearest * corners) / corners
    axes = torch.arange(corners, device=features.device)[:, None].expand(corners, points)
    axis_of_rank = torch.empty_like(axes).scatter_(0, rank.long(), axes)
    descending = difference.gather(0, axis_of_rank)
    weights = torch.empty_like(descending)
    # The corner of remainder k lies between the (d - k)-th and the (d + 1 - k)-th largest difference.
    weights[1:] = (descending[:-1] - descending[1:]).flip(0)
    weights[0] = 1 + descending[-1] - descending[0]
    return nearest[:dimensions].to(torch.int32), axis_of_rank.to(torch.uint8), weights.t()


def _elevate(features: Tensor) -> Tensor:
    """(d + 1, N): the points on the plane of sum 0, scaled so that the blur has standard deviation 1."""
    points, dimensions = features.shape
    elevated = torch.empty(dimensions + 1, points, dtype=torch.float32, device=features.device)
    total = torch.zeros(points, dtype=torch.float32, device=features.device)
    # Rounded in float32 here and again after the division, as pydensecrf does: a last digit decides on which side of a
    # face a point lies, and so which corners there are.
    deviation = float(np.float32(math.sqrt(2 / 3) * (dimensions + 1)))
    for axis in range(dimensions, 0, -1):
        scaled = features[:, axis - 1] * float(np.float32(deviation / math.sqrt(axis * (axis + 1))))
        elevated[axis] = total - axis * scaled
        total += scaled
    elevated[0] = total
    return elevated


def _number_cells(cells: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor, int]:
    """One number per point for its (d, N) cell and group.

    Returns:
        The numbers, (N,) int32 or int64; what a step along each of the d + 1 coordinates adds to them (0 for the last,
        which follows from the others); and a bound of the numbers.
    """
    low, high = (bound.tolist() for bound in (cells.amin(1), cells.amax(1)))
    # Other corners of a simplex lie one cell lower, and their neighbours one lower or higher still.
    sizes = [above - below + 4 for below, above in zip(low, high, strict=True)]
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    span = math.prod(sizes)
    total = span * (1 if groups is None else int(groups.max()) + 1)
    if total * (len(sizes) + 1) >= 2**63:
        raise UsageError(TOO_NARROW)
    dtype = _smallest(total)
    code = torch.zeros(cells.shape[1], dtype=dtype, device=cells.device)
    for axis, stride in enumerate(strides):
        code += (cells[axis] - (low[axis] - 2)).to(dtype) * stride
    if groups is not None:
        code += groups.to(dtype) * span
    return code, torch.tensor([*strides, 0], dtype=dtype, device=cells.device), total


def _corners(
    code: Tensor, axis_of_rank: Tensor, weights: Tensor, strides: Tensor, span: int
) -> tuple[SparseRows, Tensor, Tensor]:
    """Which corners of simplices are one vertex; `code` (N,), the number of each point's cell, is used up.

    Returns:
        The (V + 1, N) matrix that spreads values over the vertices, and a last one that stays 0; the vertex of each
        corner, (N, d + 1) int32 or int64; and remainder * span + number of the cell of each vertex, (V,), ascending.
    """
    points, corners = weights.shape
    entries, device = points * corners, code.device
    index, number = _smallest(entries), _smallest(span * corners)
    columns = torch.empty(entries, dtype=index, device=device)
    spread = torch.empty(entries, dtype=torch.float32, device=device)
    vertex = torch.empty(points, corners, dtype=index, device=device)
    names = torch.empty(points, dtype=index, device=device)
    offsets, keys, vertices = [], [], 0
    # Corners of different remainders never meet, so each remainder is sorted by itself.
    for remainder in range(corners):
        if remainder:
            code -= strides.index_select(0, axis_of_rank[corners - remainder].int())
        ordered, order = torch.sort(code, stable=True)
        first = torch.ones_like(ordered, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=first[1:])
        starts = first.nonzero().squeeze(1)
        vertex[:, remainder] = names.scatter_(0, order, first.cumsum(0, dtype=index).add_(vertices - 1))
        part = slice(remainder * points, (remainder + 1) * points)
        columns[part], spread[part] = order, weights[:, remainder].index_select(0, order)
        offsets.append(starts + remainder * points)
        keys.append(ordered.index_select(0, starts).to(number) + remainder * span)
        vertices += len(starts)
    offsets.append(torch.tensor([entries, entries], device=device))
    return SparseRows(columns, torch.cat(offsets).to(index), spread), vertex, torch.cat(keys)


def _smallest(bound: int) -> torch.dtype:
    return torch.int32 if bound < 2**31 else torch.int64


def _blurs(keys: Tensor, strides: Tensor, span: int, index: torch.dtype) -> list[SparseRows]:
    """v + (v of the next + v of the last vertex) / 2 along each axis.

    Args:
        keys: remainder * span + number of the cell, (V,) int32 or int64, ascending.
        strides: of the cell's number, (d + 1,), same dtype. span: bound of that number.

    Returns:
        One (V + 1, V + 1) matrix per axis. The last row and column stand for neighbours that are not there; what is 0
        there stays 0.
    """
    count, corners, device = len(keys), len(strides), keys.device
    here = torch.arange(count + 1, dtype=index, device=device)
    ends = torch.arange(0, 3 * (count + 1) + 1, 3, dtype=index, device=device)
    weights = torch.tensor([1, 0.5, 0.5], device=device).repeat(count + 1)
    # One back in every coordinate but d ahead in the axis: remainder k becomes k - 1, or, from 0, d in the cell before.
    lower = torch.where(keys >= span, keys - span, keys + (corners - 1) * span - strides.sum())
    blurs = []
    for stride in strides:
        wanted = lower + stride
        found = torch.searchsorted(keys, wanted, out_int32=index == torch.int32).clamp_(max=count - 1)
        found.masked_fill_(keys.index_select(0, found) != wanted, count)
        columns = here[:, None].repeat(1, 3)
        columns[:count, 1] = found
        columns[:, 2] = torch.full_like(here, count).scatter_(0, found.long(), here[:count])
        columns[count] = count
        blurs.append(SparseRows(columns.view(-1), ends, weights))
    return blurs

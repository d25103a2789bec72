"""Matrices of all patches by all patches, some rows at a time: at 8192 patches one takes a quarter of a gigabyte."""

from __future__ import annotations

from collections.abc import Iterator

PART_BYTES = 64 * 2**20


def row_parts(rows: int, columns: int) -> Iterator[slice]:
    """Slices of the rows of an fp32 matrix, each of about `PART_BYTES`."""
    step = max(1, PART_BYTES // (4 * max(1, columns)))
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))

"""Regions of masks as other tools store them: connected parts, run lengths, boxes and polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

Box = tuple[int, int, int, int]

RIGHT, DOWN, LEFT, UP = range(4)  # directions of edges, clockwise


def connected_parts(region: np.ndarray) -> Iterator[np.ndarray]:
    """The 8-connected parts of a region, (H, W) bool each, in reading order of their first pixels."""
    count, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        yield labels == label


def bounding_box(region: np.ndarray) -> Box:
    """(x, y, width, height) of a region that is not empty, in pixels."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return (
        int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1,
    )  # fmt: skip


def coco_rle(region: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths: {"size": [H, W], "counts": ASCII text}, columns first.

    Raises:
        ModuleNotFoundError: pycocotools is not installed.
    """
    from pycocotools import mask as coco_masks

    encoded = coco_masks.encode(np.asfortranarray(region, np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def row_runs(region: np.ndarray) -> list[int]:
    """Lengths of runs in reading order, zeros first (CVAT's masks): [[0, 1], [1, 0]] -> [1, 2, 1]."""
    values = region.ravel().astype(np.int8)
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, values.size)
    lengths = np.diff(ends, prepend=0).tolist()
    return [0, *lengths] if values[0] else lengths


def edge_rings(part: np.ndarray) -> list[np.ndarray]:
    """Outlines of a connected part along the edges of its pixels, the outer one first, then those of holes.

    Pixel (row, column) covers [column, column + 1) x [row, row + 1), as COCO counts: filled by the even-odd rule, the
    rings give the part again, pixel for pixel.

    Args:
        part: (H, W) bool, 8-connected and not empty.

    Returns:
        (N, 2) int64 corners (x, y) of each ring, without the last one that repeats the first.
    """
    x, y, width, height = bounding_box(part)
    inside = np.pad(part[y : y + height, x : x + width], 1)
    step = width + 2  # corners in a row of the padded crop, which is enough for all of them
    starts = _boundary_edges(inside, step)
    moves = (1, step, -1, -step)
    following: dict[int, list[int]] = {}
    for direction, corners in enumerate(starts):
        for corner in corners.tolist():
            following.setdefault(corner, []).append(direction)
    rings = []
    while following:
        start = next(iter(following))
        ring: list[int] = []
        corner, heading = start, following[start][0]
        while True:
            choices = following[corner]
            # Two parts of the region meet in this corner: turning left stays with both of them.
            turn = next(turned for turned in ((heading - 1) % 4, heading, (heading + 1) % 4) if turned in choices)
            if turn != heading or not ring:
                ring.append(corner)
            choices.remove(turn)
            if not choices:
                del following[corner]
            heading, corner = turn, corner + moves[turn]
            if corner == start and not (start in following and (heading - 1) % 4 in following[start]):
                break
        rings.append(np.stack([np.array(ring) % step + x - 1, np.array(ring) // step + y - 1], axis=1))
    return sorted(rings, key=lambda ring: -abs(ring_area(ring)))


def _boundary_edges(inside: np.ndarray, step: int) -> list[np.ndarray]:
    """Start corners of the edges between inside and outside, by direction; the inside is on their right hand."""
    below = inside[1:] & ~inside[:-1]  # [r, c]: the edge above pixel (r + 1, c)
    above = inside[:-1] & ~inside[1:]
    right = inside[:, 1:] & ~inside[:, :-1]
    left = inside[:, :-1] & ~inside[:, 1:]

    def corners(edges: np.ndarray, down: int, across: int) -> np.ndarray:
        rows, columns = np.nonzero(edges)
        return (rows + down) * step + columns + across

    return [corners(below, 1, 0), corners(left, 0, 1), corners(above, 1, 1), corners(right, 1, 1)]


def pixel_rings(part: np.ndarray) -> list[np.ndarray]:
    """Outlines of a connected part through the centres of its border pixels, the outer one first, then holes.

    Tools that fill polygons with OpenCV (`fillPoly` paints the border, too) get the part again.

    Returns:
        (N, 2) int64 pixels (x, y) of each ring.
    """
    found, tree = cv2.findContours(part.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    order = sorted(range(len(found)), key=lambda place: tree[0][place][3] >= 0)
    return [found[place][:, 0].astype(np.int64) for place in order]


def bridged(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One polygon of an outline and its holes: each hole hangs on a bridge of no width, where it is nearest.

    Args:
        rings: the outer one first.

    Returns:
        (N, 2) corners.
    """
    from scipy.spatial import cKDTree

    polygon = rings[0]
    for hole in rings[1:]:
        distances, places = cKDTree(polygon).query(hole)
        nearest = int(np.argmin(distances))
        place = int(places[nearest])
        there = np.roll(hole, -nearest, axis=0)
        polygon = np.concatenate([polygon[: place + 1], there, there[:1], polygon[place:]])
    return polygon


def ring_area(ring: np.ndarray) -> float:
    """Area of a ring with its sign: positive where the ring is clockwise on the screen."""
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)

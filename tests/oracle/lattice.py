"""The permutohedral lattice point by point, with a dictionary for its hash table (Adams, Baek and Davis 2010)."""

import math
from collections import defaultdict

import numpy as np


def simplex(point: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """(key, weight) of the d + 1 corners around one point of d features."""
    d = len(point)
    scaled = [value * math.sqrt(2 / 3) * (d + 1) / math.sqrt((i + 1) * (i + 2)) for i, value in enumerate(point)]
    elevated = [sum(scaled[j:]) - (j * scaled[j - 1] if j else 0.0) for j in range(d + 1)]
    nearest = [round(value / (d + 1)) * (d + 1) for value in elevated]
    difference = [value - near for value, near in zip(elevated, nearest, strict=True)]
    order = sorted(range(d + 1), key=lambda j: (-difference[j], j))
    rank, off = [0] * (d + 1), sum(nearest) // (d + 1)
    for place, j in enumerate(order):
        rank[j] = place + off
        if rank[j] < 0:
            rank[j] += d + 1
            nearest[j] += d + 1
        elif rank[j] > d:
            rank[j] -= d + 1
            nearest[j] -= d + 1
    barycentric = [0.0] * (d + 2)
    for j in range(d + 1):
        share = (elevated[j] - nearest[j]) / (d + 1)
        barycentric[d - rank[j]] += share
        barycentric[d + 1 - rank[j]] -= share
    barycentric[0] += 1 + barycentric[d + 1]
    return [
        (tuple(nearest[j] + (k if rank[j] <= d - k else k - (d + 1)) for j in range(d)), barycentric[k])
        for k in range(d + 1)
    ]


def lattice_filter(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(N, K) values filtered by the distances of their (N, d) features; not normalised."""
    d = features.shape[1]
    corners = [simplex(point) for point in features.astype(np.float64)]
    table = defaultdict(lambda: np.zeros(values.shape[1]))
    for around, value in zip(corners, values, strict=True):
        for key, weight in around:
            table[key] = table[key] + weight * value
    for axis in range(d + 1):
        table = blurred(table, np.array([d if j == axis else -1 for j in range(d)]))
    return np.array([sum(weight * table[key] for key, weight in around) for around in corners]) / (1 + 2.0**-d)


def blurred(table: dict, step: np.ndarray) -> dict:
    """v + (v of the next + v of the last) / 2 along one axis; neighbours that are not there count 0."""

    def at(key: tuple, offset: np.ndarray) -> np.ndarray | int:
        return table.get(tuple((np.array(key) + offset).tolist()), 0)

    return {key: value + (at(key, step) + at(key, -step)) / 2 for key, value in table.items()}

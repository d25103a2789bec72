"""Label probabilities of a small picture brought to the size of the photo, along the photo's edges.

The CRF costs 0.3 to 0.4 GB and about three seconds per megapixel, so large photos are refined at a smaller size. The
probabilities then follow the photo's own edges by a guided filter: in each window they are an affine function of the
colours, fitted at the small size and applied at the large one (He and Sun, "Fast Guided Filter", arXiv 1505.00996,
section 3; the colour form is He et al., "Guided Image Filtering", TPAMI 2013, section 3.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

RADIUS = 4  # of the windows, in pixels of the small picture
EPSILON = 1e-3  # variance, of colours in [0, 1], below which a window counts as flat
COEFFICIENT_BYTES = 2**28  # of the labels that are enlarged together; more go in groups, which bounds memory
BAND = 256  # rows of the large picture that are done at a time, which bounds memory


def fitted_size(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """(height, width) whose longer side is at most `max_side`; unchanged if it is already, or without a limit."""
    if max_side is None or max(height, width) <= max_side:
        return height, width
    scale = max_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def most_probable_nearest(probabilities: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Position of the most probable label, and its probability, enlarged without looking at the photo.

    Args:
        probabilities: (K, h, w) float32.
        size: (height, width) of the result.

    Returns:
        (H, W) uint16 positions in 0..K-1, and (H, W) float32.
    """
    target = size[::-1]
    best = cv2.resize(probabilities.argmax(axis=0).astype(np.float32), target, interpolation=cv2.INTER_NEAREST)
    return best.astype(np.uint16), cv2.resize(probabilities.max(axis=0), target, interpolation=cv2.INTER_NEAREST)


def most_probable_guided(
    probabilities: np.ndarray, small_rgb: np.ndarray, rgb: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Position of the most probable label of each pixel of a photo, and its probability, by a guided filter.

    Args:
        probabilities: (K, h, w) float32, summing to 1 at each pixel.
        small_rgb: the photo at their size, (h, w, 3) uint8.
        rgb: the photo, (H, W, 3) uint8.

    Returns:
        (H, W) uint16 positions in 0..K-1, and (H, W) float32 in [0, 1].
    """
    height, width = rgb.shape[:2]
    best = np.zeros((height, width), np.uint16)
    highest = np.full((height, width), -np.inf, np.float32)
    windows = _Windows.of(small_rgb.astype(np.float32) / 255)
    together = max(1, COEFFICIENT_BYTES // (probabilities[0].size * 4 * 4))
    for start in range(0, len(probabilities), together):
        coefficients = [windows.fit(one) for one in probabilities[start : start + together]]
        for first in range(0, height, BAND):
            band = slice(first, min(first + BAND, height))
            guide = rgb[band].astype(np.float32) / 255
            values = np.stack([_applied(one, guide, band, height) for one in coefficients])
            top = values.max(axis=0)
            higher = top > highest[band]
            np.copyto(best[band], (values.argmax(axis=0) + start).astype(np.uint16), where=higher)
            np.copyto(highest[band], top, where=higher)
    return best, highest.clip(0, 1)


def _mean(values: np.ndarray) -> np.ndarray:
    return cv2.blur(values, (2 * RADIUS + 1, 2 * RADIUS + 1), borderType=cv2.BORDER_REFLECT)


@dataclass(frozen=True)
class _Windows:
    """Colours of a picture, (h, w, 3), their means in the windows, and the inverses of their covariances there."""

    guide: np.ndarray
    average: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, guide: np.ndarray) -> _Windows:
        average = _mean(guide)
        covariance = np.empty((*guide.shape[:2], 3, 3), np.float32)
        for row in range(3):
            for column in range(row, 3):
                product = _mean(guide[..., row] * guide[..., column]) - average[..., row] * average[..., column]
                covariance[..., row, column] = covariance[..., column, row] = product
        return cls(guide, average, np.linalg.inv(covariance + EPSILON * np.eye(3, dtype=np.float32)))

    def fit(self, values: np.ndarray) -> np.ndarray:
        """Smoothed coefficients of one label's map, (h, w, 4): one per colour, then the offset."""
        level = _mean(values)
        shared = _mean(self.guide * values[..., None]) - self.average * level[..., None]
        slopes = np.einsum("hwij,hwj->hwi", self.inverse, shared)
        offset = level - (slopes * self.average).sum(axis=2)
        return _mean(np.concatenate([slopes, offset[..., None]], axis=2))


def _applied(coefficients: np.ndarray, guide: np.ndarray, band: slice, height: int) -> np.ndarray:
    """The affine function on rows `band` of a photo `height` rows high: (rows, W) float32."""
    scale = len(coefficients) / height
    rows = ((np.arange(band.start, band.stop) + 0.5) * scale - 0.5).clip(0, len(coefficients) - 1)
    upper = np.floor(rows).astype(int)
    share = (rows - upper).astype(np.float32)[:, None, None]
    lower = np.minimum(upper + 1, len(coefficients) - 1)
    tall = coefficients[upper] * (1 - share) + coefficients[lower] * share
    wide = cv2.resize(tall, (guide.shape[1], len(rows)), interpolation=cv2.INTER_LINEAR)
    return (wide[..., :3] * guide).sum(axis=2) + wide[..., 3]

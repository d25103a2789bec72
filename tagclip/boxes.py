"""From score maps to boxes, for all classes at once (TagCLIP section "DMAR"; CLIP-ES section 3.4)."""

import cv2
import numpy as np
import torch
from torch import Tensor

from tagclip.devices import to_double

LEVELS = 255  # the published code thresholds maps that were quantised to uint8


def scale_maps(maps: Tensor) -> Tensor:
    """Each map to [0, 1]: (v - min) / (max - min) over its last two dimensions; a constant map becomes 0.

    Args:
        maps: (..., h, w) float.
    """
    low = maps.amin(dim=(-2, -1), keepdim=True)
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    return torch.where(span > 0, (maps - low) / span, torch.zeros_like(maps))


def threshold_maps(maps: Tensor, threshold: float | Tensor) -> Tensor:
    """Which cells of quantised maps lie above a share of the map's peak: u = uint8(255 m), u > int(t max(u)).

    Args:
        maps: in [0, 1], (..., h, w).
        threshold: t, one number or one a map, shape (...).

    Returns:
        (..., h, w) bool; on the CPU if the device of `maps` has no float64.
    """
    quantised = (maps * LEVELS).to(torch.uint8)
    peak = to_double(quantised.amax(dim=(-2, -1)))
    level = (peak * threshold).floor()[..., None, None]
    return quantised.to(level.device) > level


def box_masks(maps: Tensor, threshold: float | Tensor, *, clip_last: bool = False) -> Tensor:
    """1 inside any box of a map: the bounding rectangles of the 8-connected regions above the threshold.

    The same cells as under the bounding rectangles of external contours: regions nested in the hole of another lie
    inside its rectangle.

    Args:
        maps: in [0, 1], (..., h, w), on any device; regions are labelled on the CPU.
        threshold: share of a map's peak, one number or one a map, shape (...).
        clip_last: clip exclusive box ends to w - 1 and h - 1 as the published code does.

    Returns:
        (..., h, w) bool on the device of `maps`; all False for a map without a region.
    """
    binary = threshold_maps(maps, threshold)
    flat = binary.reshape(-1, *binary.shape[-2:]).cpu().numpy()
    return torch.from_numpy(fill_boxes(flat, clip_last)).to(maps.device).reshape(binary.shape)


def fill_boxes(binary: np.ndarray, clip_last: bool = False) -> np.ndarray:
    """Fill the bounding rectangle of each 8-connected region: (M, h, w) bool -> (M, h, w) bool."""
    count, height, width = binary.shape
    if binary.size == 0:
        return np.zeros_like(binary)
    # All maps under one another with an empty row between: one labelling for all of them.
    stacked = np.zeros((count, height + 1, width), dtype=np.uint8)
    stacked[:, :height] = binary
    stats: np.ndarray = cv2.connectedComponentsWithStats(stacked.reshape(-1, width), connectivity=8)[2][1:]
    index, y0 = np.divmod(stats[:, cv2.CC_STAT_TOP], height + 1)
    x0 = stats[:, cv2.CC_STAT_LEFT]
    x1, y1 = x0 + stats[:, cv2.CC_STAT_WIDTH], y0 + stats[:, cv2.CC_STAT_HEIGHT]
    if clip_last:
        x1, y1 = np.minimum(x1, width - 1), np.minimum(y1, height - 1)
    # Union of rectangles: +1 and -1 at their corners, summed up along both axes.
    corners = np.zeros((count, height + 1, width + 1), dtype=np.int32)
    for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        np.add.at(corners, (index, y, x), sign)
    return corners.cumsum(axis=1).cumsum(axis=2)[:, :height, :width] > 0


def tight_boxes(masks: Tensor, *, clip_last: bool = False) -> Tensor:
    """Smallest box around the cells of each mask.

    Args:
        masks: (M, h, w) bool.
        clip_last: clip exclusive box ends to w - 1 and h - 1 as the published code does.

    Returns:
        (M, 4) int64 x0, y0, x1, y1, ends exclusive; all zeros for an empty mask.
    """
    spans = []
    for cells in (masks.any(dim=1), masks.any(dim=2)):  # columns, then rows
        size = cells.shape[1]
        first = cells.int().argmax(dim=1)
        end = size - cells.flip(1).int().argmax(dim=1)
        if clip_last:
            end = end.clamp(max=size - 1)
        spans.append((first, torch.where(cells.any(dim=1), end, torch.zeros_like(end))))
    (x0, x1), (y0, y1) = spans
    return torch.stack([x0, y0, x1, y1], dim=1)

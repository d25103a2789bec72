"""From class maps to label maps: upsampling, background score, refinement, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from wsss.config import MaskConfig
from wsss.files.mask_files import label_dtype
from wsss.masks.crf import crf_probabilities, uniform_label
from wsss.masks.upsampling import fitted_size, most_probable_guided, most_probable_nearest

if TYPE_CHECKING:
    import torch



@dataclass
class LabelMap:
    """The mask of one image before and after doubtful pixels are taken out.

    Attributes:
        mask: (H, W) uint8 or uint16: `labels` with pixels of low confidence or doubtful background set to the ignore
            label.
        labels: (H, W), the same dtype, most probable label: 0 background and class c -> c + 1, or class c -> c without
            background.
        confidence: (H, W) float32, highest probability of each pixel; where one label led everywhere and the CRF was
            spared, a lower bound of it.
        probabilities: (K + 1, H, W) float32 over background (if any) and the image's tags, or None if not asked for.
    """

    mask: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray | None = None


def mask_from_maps(
    rgb: np.ndarray,
    maps: np.ndarray,
    indices: Sequence[int],
    config: MaskConfig,
    *,
    has_background: bool = True,
    keep_probabilities: bool = False,
    device: torch.device | str = "cpu",
) -> LabelMap:
    """Turn the class maps of one image into its mask.

    Args:
        rgb: the image, (H, W, 3) uint8.
        maps: refined maps in [0, 1] on the patch grid, (K, h, w), K >= 0; any float dtype.
        indices: class of each map, distinct.
        config: settings, for the vocabulary's number of labels (`MaskConfig.for_labels`).
        has_background: label 0 is the background and class c is c + 1; otherwise class c is label c.
        keep_probabilities: return the probability maps too, which also rules out the CRF's shortcut.
        device: torch device on which PAMR and the CRF on tensors run.
    """
    height, width = rgb.shape[:2]
    dtype = label_dtype(config.ignore_label)  # what is below the ignore label are the labels
    ids = np.asarray([index + has_background for index in indices], dtype=dtype)
    if has_background:
        ids = np.concatenate([np.zeros(1, dtype), ids])
    if not len(ids):  # no tag and no background: nothing is known of any pixel
        unknown = np.full((height, width), config.ignore_label, dtype)
        empty = np.zeros((0, height, width), np.float32) if keep_probabilities else None
        return LabelMap(unknown, unknown.copy(), np.zeros((height, width), np.float32), empty)
    rounded = np.asarray(maps).astype(config.storage_dtype)
    found = _most_probable(rgb, rounded, ids, config, has_background, keep_probabilities, device)
    if config.sure_alpha is not None and has_background and len(ids) > 1:
        strict = replace(config, alpha=config.sure_alpha, sure_alpha=None)
        sure = _most_probable(rgb, rounded, ids, strict, has_background, False, device)
        found.mask[(found.labels == 0) & (sure.labels != 0)] = config.ignore_label
    return found


def _most_probable(
    rgb: np.ndarray,
    rounded: np.ndarray,
    ids: np.ndarray,
    config: MaskConfig,
    has_background: bool,
    keep_probabilities: bool,
    device: torch.device | str,
) -> LabelMap:
    """`mask_from_maps` for one background exponent, of maps as they are stored and the labels that compete."""
    size = (rgb.shape[0], rgb.shape[1])
    small = fitted_size(*size, config.max_refine_side)
    seen = rgb if small == size else cv2.resize(rgb, small[::-1], interpolation=cv2.INTER_AREA)
    scores = label_scores(rounded, small, config, has_background=has_background)
    if config.refiner == "crf" and not keep_probabilities:
        leader = uniform_label(scores, config.confidence, config.crf)
        if leader is not None:
            labels = np.full(size, ids[leader])
            certainty = cv2.resize(scores[leader] / scores.sum(axis=0), size[::-1], interpolation=cv2.INTER_NEAREST)
            return LabelMap(labels, labels.copy(), certainty)
    probabilities = refine_label_scores(seen, scores, config, device, has_background=has_background)
    if small == size:
        best, confidence = probabilities.argmax(axis=0), probabilities.max(axis=0)
    elif config.upsampling == "guided":
        best, confidence = most_probable_guided(probabilities, seen, rgb)
    else:
        best, confidence = most_probable_nearest(probabilities, size)
    labels = ids[best]
    mask = labels.copy()
    if config.confidence is not None:
        mask[confidence < config.confidence] = config.ignore_label
    return LabelMap(mask, labels, confidence, _enlarged(probabilities, size) if keep_probabilities else None)


def _enlarged(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if probabilities.shape[1:] == size:
        return probabilities
    return np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in probabilities])


def label_scores(
    maps: np.ndarray, size: tuple[int, int], config: MaskConfig, *, has_background: bool = True
) -> np.ndarray:
    """Class maps at the image's size, below the background score (1 - max_k cam_k) ** alpha (CLIP-ES section 3.5).

    Args:
        maps: (K, h, w) in [0, 1].
        size: (height, width) of the image.

    Returns:
        (K, H, W) or, with background, (1 + K, H, W) float32 in [0, 1].
    """
    height, width = size
    first = 1 if has_background else 0
    # The one large array, filled where it stays: with many labels a copy of it is what memory runs out of.
    scores = np.empty((first + len(maps), height, width), np.float16 if config.round_upsampled else np.float32)
    for index, one in enumerate(maps):
        scores[first + index] = cv2.resize(one.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    if has_background:
        scores[0] = (1 - scores[1:].max(axis=0, initial=0)) ** config.alpha
    return scores.astype(np.float32, copy=False)


def refine_label_scores(
    rgb: np.ndarray,
    scores: np.ndarray,
    config: MaskConfig,
    device: torch.device | str = "cpu",
    *,
    has_background: bool = True,
) -> np.ndarray:
    """Label probabilities from scores, after the configured refiner.

    Args:
        rgb: the image, (H, W, 3) uint8.
        scores: one map per label, (K, H, W) float32 in [0, 1]; they need not sum to 1.
        device: torch device on which PAMR, PAR, SAM and the CRF on tensors run.
        has_background: the first label is the background.

    Returns:
        (K, H, W) float32, summing to 1 at each pixel where any score is above 0.
    """
    if config.refiner == "crf":
        return crf_probabilities(rgb, scores, config.crf, device)
    if config.refiner == "pamr":
        # Imported when needed: CRF worker processes start in a tenth of the time and memory without torch.
        import torch

        from wsss.masks.pamr import refine_with_pamr

        image = torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)
        scores = refine_with_pamr(image, torch.from_numpy(scores).to(device), config.pamr).cpu().numpy()
    if config.refiner == "par":
        import torch

        from wsss.masks.par import refine_with_par

        image = torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)
        scores = refine_with_par(image, torch.from_numpy(scores).to(device), config.par).cpu().numpy()
    if config.refiner == "sam":
        from wsss.masks.sam import refine_with_sam

        return refine_with_sam(rgb, scores, config.sam, has_background=has_background, device=device)
    return scores / np.maximum(scores.sum(axis=0), config.cam.epsilon)

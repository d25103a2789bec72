"""Dense CRF over the labels of one image (Krähenbühl and Koltun, arXiv 1210.5644), with the constants of CLIP-ES."""

from __future__ import annotations

import numpy as np

from tagclip.errors import UsageError
from wsss.config import CrfConfig


def crf_probabilities(rgb: np.ndarray, scores: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Mean-field marginals of the fully connected CRF.

    Args:
        rgb: the image, (H, W, 3) uint8 RGB.
        scores: one map per label, (K, H, W) in [0, 1]; they need not sum to 1. The unary energy is -log(score).

    Returns:
        (K, H, W) float32, summing to 1 at each pixel.

    Raises:
        UsageError: pydensecrf is not installed.
    """
    labels, height, width = scores.shape
    if labels == 1:  # one label has probability 1 whatever its energy
        return np.ones_like(scores, dtype=np.float32)
    try:
        from pydensecrf.densecrf import DenseCRF2D
        from pydensecrf.utils import unary_from_softmax
    except ImportError:
        raise UsageError("refiner 'crf' needs pydensecrf: pip install tagclip-wsss[crf], or choose 'pamr'") from None
    unary = unary_from_softmax(scores, clip=config.probability_floor)
    crf = DenseCRF2D(width, height, labels)
    # pydensecrf refuses arrays that are not C-contiguous or that are read-only.
    crf.setUnaryEnergy(np.require(unary, np.float32, ("C", "W")))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.require(wrap_dark_pixels(rgb, config) if config.wrap_dark_pixels else rgb, np.uint8, ("C", "W")),
        compat=config.bilateral_compat,
    )
    return np.array(crf.inference(config.iterations), dtype=np.float32).reshape(labels, height, width)


def wrap_dark_pixels(rgb: np.ndarray, config: CrfConfig) -> np.ndarray:
    """The published code's CRF image: BGR minus its mean, truncated to uint8, so that dark values wrap to bright ones.

    Args:
        rgb: (H, W, 3) uint8 RGB.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    shifted = rgb[..., ::-1].astype(np.float32) - np.asarray(config.mean_bgr, dtype=np.float32)
    return np.trunc(shifted).astype(np.int16).astype(np.uint8)


def uniform_label(scores: np.ndarray, confidence: float | None, config: CrfConfig) -> int | None:
    """The label that the CRF is certain to give every pixel, confidently; None if it must be run to know.

    If one label leads at every pixel, it still does after any number of mean-field steps: the kernels are not
    negative, so the leading label receives the largest messages, and with Potts weights these can only add to its lead.
    Its probability never falls below that of the unary term, so confident pixels stay confident.

    Args:
        scores: one map per label, (K, H, W) in [0, 1].
        confidence: probability that every pixel must reach, or None for any.
    """
    floored = np.clip(scores, config.probability_floor, 1)
    leader = int(floored[:, 0, 0].argmax())
    others = np.delete(floored, leader, axis=0)
    if len(others) and not (floored[leader] > others.max(axis=0)).all():
        return None
    if confidence is not None and (floored[leader] < confidence * floored.sum(axis=0)).any():
        return None
    return leader

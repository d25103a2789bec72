"""Dense CRF of section 3, preset `reference`, with the published image that wraps around."""

import numpy as np
import pytest

from tests.oracle.lattice import lattice_filter

MEAN_BGR = (104.008, 116.669, 122.675)


def wrapped_image(rgb: np.ndarray) -> np.ndarray:
    """The published code's CRF image: BGR, mean subtracted, cast to uint8 so that negative values wrap. (H, W, 3)."""
    shifted = rgb[:, :, ::-1].astype(np.float32) - np.array(MEAN_BGR, dtype=np.float32)
    return np.ascontiguousarray((shifted.astype(np.int64) % 256).astype(np.uint8))


def dense_crf(image: np.ndarray, probabilities: np.ndarray, iterations: int = 10) -> np.ndarray:
    """Mean field over (labels, H, W) maps in [0, 1]; image is (H, W, 3) uint8. Returns (labels, H, W) float32.

    Skips the test that asks on a machine without pydensecrf.
    """
    dcrf = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not installed")
    from pydensecrf.utils import unary_from_softmax

    labels, height, width = probabilities.shape
    crf = dcrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    crf.addPairwiseGaussian(sxy=1, compat=3)
    crf.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    return np.array(crf.inference(iterations), dtype=np.float32).reshape(labels, height, width)


def mean_field(image: np.ndarray, probabilities: np.ndarray, iterations: int = 10) -> np.ndarray:
    """`dense_crf` without pydensecrf, on the point-by-point lattice; for pictures of a few hundred pixels."""
    labels, height, width = probabilities.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    colour = image.reshape(-1, 3)
    kernels = []
    for features, weight in (
        (np.stack([x, y], 1) / 1, 3),
        (np.concatenate([np.stack([x, y], 1) / 67, colour / 3], 1), 4),
    ):
        norm = 1 / np.sqrt(lattice_filter(features, np.ones((len(features), 1))) + 1e-20)
        kernels.append((features, weight, norm))
    unary = np.log(np.clip(probabilities, 1e-5, 1).astype(np.float64)).reshape(labels, -1).T
    marginals = softmax(unary)
    for _ in range(iterations):
        messages = (weight * norm * lattice_filter(features, norm * marginals) for features, weight, norm in kernels)
        marginals = softmax(unary + sum(messages))
    return marginals.T.reshape(labels, height, width)


def softmax(rows: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)

"""Dense CRF of section 3, preset `reference`, with the published image that wraps around."""

import numpy as np
import pytest

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

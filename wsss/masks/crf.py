"""Dense CRF over the labels of one image (Krähenbühl and Koltun, arXiv 1210.5644), with the constants of CLIP-ES."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from tagclip.errors import RequirementError, first_line
from tagclip.requirements import import_advice
from wsss.config import CrfConfig, MaskConfig

if TYPE_CHECKING:
    import torch

Engine = Literal["pydensecrf", "torch"]


def crf_engine(config: CrfConfig, device: torch.device | str = "cpu") -> Engine:
    """What computes the CRF here: for "auto", pydensecrf on a CPU that has it, otherwise tensors."""
    if config.engine != "auto":
        return config.engine
    return "pydensecrf" if is_cpu(device) and _why_no_pydensecrf() is None else "torch"


def settle_engine(config: MaskConfig, device: torch.device | str = "cpu") -> MaskConfig:
    """The settings with the engine that `crf_engine` names, for a run's records and its workers.

    Raises:
        RequirementError: the CRF is to be pydensecrf's, or the refiner SAM, and its package is not installed.
        UsageError: the refiner is SAM, whose weights are not there.
    """
    if config.refiner == "sam":
        from wsss.masks.sam import require_sam

        require_sam(config.sam)
    if config.refiner != "crf":
        return config
    engine = crf_engine(config.crf, device)
    if engine == "pydensecrf":
        _require_pydensecrf()
    return replace(config, crf=replace(config.crf, engine=engine))


def is_cpu(device: torch.device | str) -> bool:
    """Whether a device, which may be given by its name, is the CPU; without importing torch."""
    return str(device).partition(":")[0] == "cpu"


def crf_probabilities(
    rgb: np.ndarray, scores: np.ndarray, config: CrfConfig, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Mean-field marginals of the fully connected CRF.

    Args:
        rgb: the image, (H, W, 3) uint8 RGB.
        scores: one map per label, (K, H, W) in [0, 1]; they need not sum to 1. The unary energy is -log(score).
        device: where the CRF on tensors runs; pydensecrf's runs on the CPU.

    Returns:
        (K, H, W) float32, summing to 1 at each pixel.

    Raises:
        RequirementError: the engine is to be pydensecrf, which is not installed.
    """
    if len(scores) == 1:  # one label has probability 1 whatever its energy
        return np.ones_like(scores, dtype=np.float32)
    seen = wrap_dark_pixels(rgb, config) if config.wrap_dark_pixels else rgb
    if crf_engine(config, device) == "pydensecrf":
        return _by_pydensecrf(seen, scores, config)
    # Imported when needed: worker processes with pydensecrf start in a tenth of the time and memory without torch.
    import torch

    from wsss.masks.crf_tensors import dense_crf

    image = torch.from_numpy(np.require(seen, np.uint8, ("C", "W"))).to(device)
    maps = torch.from_numpy(np.require(scores, np.float32, ("C", "W"))).to(device)
    return dense_crf([image], [maps], config)[0].cpu().numpy()


def _by_pydensecrf(rgb: np.ndarray, scores: np.ndarray, config: CrfConfig) -> np.ndarray:
    _require_pydensecrf()
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    labels, height, width = scores.shape
    unary = unary_from_softmax(scores, clip=config.probability_floor)
    crf = DenseCRF2D(width, height, labels)
    # pydensecrf refuses arrays that are not C-contiguous or that are read-only.
    crf.setUnaryEnergy(np.require(unary, np.float32, ("C", "W")))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.require(rgb, np.uint8, ("C", "W")),
        compat=config.bilateral_compat,
    )
    return np.array(crf.inference(config.iterations), dtype=np.float32).reshape(labels, height, width)


def _require_pydensecrf() -> None:
    reason = _why_no_pydensecrf()
    if reason is not None:
        raise RequirementError(
            f"masks.crf.engine is 'pydensecrf', as the reference preset has it, but {reason}; or take the CRF that "
            "needs no package: --set masks.crf.engine=torch"
        )


def _why_no_pydensecrf() -> str | None:
    """What stands in the way of importing it, None if nothing."""
    try:
        import pydensecrf.densecrf
        import pydensecrf.utils  # noqa: F401
    except Exception as error:  # one that was built for another NumPy raises ValueError
        advice = import_advice(error) if isinstance(error, ImportError) else None
        return advice or f"pydensecrf cannot be imported ({first_line(error)})"
    return None


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

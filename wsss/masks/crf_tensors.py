"""Mean-field inference of the fully connected CRF (Krähenbühl and Koltun, arXiv 1210.5644) on tensors, on any device.

What pydensecrf computes with its default settings: a Gaussian and a bilateral Potts term, each kernel normalised
symmetrically. The sums are added up in another order, so results differ in the last digits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tagclip.errors import UsageError
from tagclip.precision import exact_float32
from wsss.config import CrfConfig
from wsss.masks.lattice import PermutohedralLattice

EPSILON = 1e-20  # of a kernel's row sum
FEW_LABELS = 8  # torch.softmax is slow on rows of fewer values
PIXELS_TOGETHER = 1 << 22  # of images that share a lattice on an accelerator, where many small steps cost most


@torch.inference_mode()
@exact_float32()
def dense_crf(images: Sequence[Tensor], scores: Sequence[Tensor], config: CrfConfig) -> list[Tensor]:
    """Mean-field marginals of several images, which may differ in size and labels.

    Args:
        images: (H, W, 3) uint8 each.
        scores: one map per label, (K, H, W) float in [0, 1] each, on the image's device; they need not sum to 1. The
            unary energy is -log(score).

    Returns:
        (K, H, W) float32 each, summing to 1 at each pixel.

    Raises:
        UsageError: deviations of a kernel so small that the lattice has too many cells; the settings are named.
    """
    results: list[Tensor] = []
    for part in _parts(images):
        results += _dense_crf_together(images[part], scores[part], config)
    return results


def _parts(images: Sequence[Tensor]) -> list[slice]:
    """Images to be worked on together: one on a CPU, whose cache is small."""
    parts, start, pixels = [], 0, 0
    for end, image in enumerate(images):
        size = image.shape[0] * image.shape[1]
        if end > start and (image.device.type == "cpu" or pixels + size > PIXELS_TOGETHER):
            parts.append(slice(start, end))
            start, pixels = end, 0
        pixels += size
    return [*parts, slice(start, len(images))] if images else []


def _dense_crf_together(images: Sequence[Tensor], scores: Sequence[Tensor], config: CrfConfig) -> list[Tensor]:
    # The larger one first, whose making takes more memory than the other's.
    bilateral = _normalised_kernel(
        images, config.bilateral_compat, bilateral_sxy=config.bilateral_sxy, bilateral_srgb=config.bilateral_srgb
    )
    gaussian = _normalised_kernel(images, config.gaussian_compat, gaussian_sxy=config.gaussian_sxy)
    unary = _log_scores(scores, config.probability_floor)
    marginals = _softmax_(unary.clone())
    for _ in range(config.iterations):
        logits = gaussian.filter(marginals)
        logits += bilateral.filter(marginals)
        marginals = _softmax_(logits.add_(unary))
    sizes = [image.shape[0] * image.shape[1] for image in images]
    return [
        part[:, : len(maps)].t().reshape(maps.shape).contiguous()
        for part, maps in zip(marginals.split(sizes), scores, strict=True)
    ]


def _features(images: Sequence[Tensor], sxy: float, srgb: float | None = None) -> tuple[Tensor, Tensor | None]:
    """Of all pixels: (x, y) / sxy and, for the bilateral kernel, colour / srgb, (N, 2 or 5); number of the image, (N,).

    The number is None where there is one image only.
    """
    parts, groups = [], []
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        rows = torch.arange(height, device=image.device, dtype=torch.float32) / sxy
        columns = torch.arange(width, device=image.device, dtype=torch.float32) / sxy
        values = [columns.repeat(height), rows.repeat_interleave(width)]
        if srgb is not None:
            values += (image.reshape(-1, 3).float() / srgb).unbind(1)
        parts.append(torch.stack(values, 1))
        groups.append(torch.full((height * width,), number, device=image.device))
    return torch.cat(parts), torch.cat(groups) if len(groups) > 1 else None


def _normalised_kernel(images: Sequence[Tensor], weight: float, **deviations: float) -> PermutohedralLattice:
    """weight * n K n with n = 1 / sqrt(row sums of K); deviations by their settings' names."""
    try:
        kernel = PermutohedralLattice(*_features(images, *deviations.values()))
    except UsageError as error:
        named = " and ".join(f"masks.crf.{name} {value:g}" for name, value in deviations.items())
        height, width = max((image.shape[:2] for image in images), key=sum)
        raise UsageError(f"{named}, a photo of {width} x {height}: {error}") from error
    norm = (kernel.filter(images[0].new_ones(kernel.points, 1, dtype=torch.float32)).squeeze(1) + EPSILON).rsqrt()
    kernel.scale(norm, weight * norm)
    return kernel


def _log_scores(scores: Sequence[Tensor], floor: float) -> Tensor:
    """(N, largest K) float32; labels that an image does not have are impossible there."""
    labels = max(len(maps) for maps in scores)
    pixels = [maps.shape[1] * maps.shape[2] for maps in scores]
    rows = scores[0].new_full((sum(pixels), labels), -torch.inf, dtype=torch.float32)
    for part, maps in zip(rows.split(pixels), scores, strict=True):
        part[:, : len(maps)] = maps.reshape(len(maps), -1).t()
        part[:, : len(maps)].clamp_(floor, 1).log_()
    return rows


def _softmax_(logits: Tensor) -> Tensor:
    """Over the labels of each row, in place where there are few."""
    if logits.shape[1] >= FEW_LABELS:
        return logits.softmax(1)
    logits -= logits.amax(1, keepdim=True)
    logits.exp_()
    return logits.div_(logits @ torch.ones(logits.shape[1], 1, device=logits.device))

"""CLIP-ES, section 2 of the specification, preset `reference`: tags -> class activation maps."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.oracle.model import OracleCLIP
from tests.oracle.tagclip import box_mask

CAM_TEMPLATE = "a clean origami {}."


@dataclass
class CamTrace:
    """Every intermediate array of one image with K tags."""

    grid: tuple[int, int]
    probabilities: Tensor  # (K + B,)
    cams: np.ndarray  # (K, h, w)
    affinity: Tensor  # (N, N), before Sinkhorn
    transition: Tensor  # (N, N), T T after Sinkhorn
    refined: np.ndarray  # (K, h, w), before the last minmax
    stacked: np.ndarray  # (1 + K, H, W) float32, background score first, rounded through float16


def scale_cam(values: np.ndarray) -> np.ndarray:
    """(v - min) / (1e-7 + max of the shifted map)."""
    values = values - values.min()
    return values / (1e-7 + values.max())


def grad_cam(clip: OracleCLIP, x: Tensor, text: Tensor, k: int, grid) -> tuple[np.ndarray, Tensor]:
    """Softmax Grad-CAM of text row k: one forward and one backward of block L. Returns (h, w) and the probabilities."""
    prefix = clip.visual_prefix(clip.depth)
    with torch.enable_grad():
        normed = clip._norm(x, prefix + ".ln_1").detach().requires_grad_(True)
        tokens, _ = clip.block_from_norm(x, normed, prefix, clip.heads, None)
        pooled = clip._norm(tokens, "visual.ln_post")[1:].mean(dim=0) @ clip.p["visual.proj"]
        probabilities = (clip.logit_scale * F.normalize(pooled, dim=-1) @ text.T).softmax(dim=-1)
        (gradient,) = torch.autograd.grad(probabilities[k], normed)
    weights = gradient[1:].mean(dim=0)
    cam = torch.relu(normed.detach()[1:] @ weights).reshape(grid).numpy()
    return scale_cam(scale_cam(cam)), probabilities.detach()


def transition_matrix(affinity: Tensor) -> Tensor:
    """Sinkhorn (column, row) three times, symmetrise, square."""
    t = affinity
    for _ in range(3):
        t = t / t.sum(dim=0, keepdim=True)
        t = t / t.sum(dim=1, keepdim=True)
    t = (t + t.T) / 2
    return t @ t


@torch.no_grad()
def class_maps(
    clip: OracleCLIP,
    image: Tensor,
    size: tuple[int, int],
    tag_text: Tensor,
    background_text: Tensor,
    *,
    first_block: int = 5,
    last_block: int = 11,
    box_threshold: float = 0.4,
    alpha: float = 1.0,
) -> CamTrace:
    """CAMs and refined CAMs of one image.

    Args:
        image: (3, H', W') normalised, sides multiples of the patch.
        size: (H, W) of the original image, for the upsampled maps.
        tag_text: (K, D) rows of the image's tags; background_text: (B, D).
        first_block, last_block: blocks of the affinity, inclusive (VOC 5..11, otherwise 5..12).
        box_threshold: 0.4 VOC, 0.7 COCO and COCO-Stuff.
    """
    x, maps, grid = clip.trunk(image, "always")
    text = torch.cat([tag_text, background_text])
    affinity = torch.stack(maps[first_block - 1 : last_block]).mean(dim=0)
    cams, refined, upsampled = [], [], []
    for k in range(len(tag_text)):
        cam, probabilities = grad_cam(clip, x, text, k, grid)
        transition = transition_matrix(affinity)
        boxes = torch.from_numpy(box_mask(cam, box_threshold)).flatten()
        spread = ((transition * boxes[None, :]) @ torch.from_numpy(cam).flatten()).reshape(grid).numpy()
        cams.append(cam)
        refined.append(spread)
        upsampled.append(cv2.resize(scale_cam(spread), (size[1], size[0])))
    # The published code stores the upsampled maps as float16 between its two stages and computes in it afterwards.
    foreground = np.stack(upsampled).astype(np.float16)
    background = (1 - foreground.max(axis=0, keepdims=True)) ** alpha
    stacked = np.concatenate([background, foreground]).astype(np.float32)
    return CamTrace(grid, probabilities, np.stack(cams), affinity, transition, np.stack(refined), stacked)


def label_map(stacked: np.ndarray, ids: list[int]) -> np.ndarray:
    """Argmax of (1 + K, H, W) as data set labels: 0 background, class c -> c + 1. uint8."""
    lookup = np.array([0] + [c + 1 for c in ids], dtype=np.uint8)
    return lookup[stacked.argmax(axis=0)]

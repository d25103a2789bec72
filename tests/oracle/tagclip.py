"""TagCLIP, section 1 of the specification, preset `reference`: image -> tag scores."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.oracle.model import OracleCLIP, minmax


@dataclass
class TagTrace:
    """Every intermediate array of one image."""

    grid: tuple[int, int]
    maps: list[Tensor]  # L of (N, N)
    patch_features: Tensor  # (1+N, D)
    coarse: Tensor  # (N, C)
    vote_mask: Tensor  # (N, N) bool
    affinity: Tensor  # (N, N), masked by the votes
    first: Tensor  # (N, C)
    refined: Tensor  # (N, C)
    local: Tensor  # (targets,)
    scores: Tensor  # (targets,)
    tags: list[int]


def score_boxes(score_map: np.ndarray, threshold: float, clip_last: bool = True) -> list[tuple[int, int, int, int]]:
    """Rectangles (x0, y0, x1, y1), half open, around the external contours of a map in [0, 1].

    `clip_last` clips x1 to w-1 and y1 to h-1 as the published code does.
    """
    height, width = score_map.shape
    scaled = (score_map * 255).astype(np.uint8)
    binary = (scaled > int(threshold * scaled.max())).astype(np.uint8) * 255
    contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in contours:
        x, y, w, h = cv2.boundingRect(contour)
        x1, y1 = x + w, y + h
        if clip_last:
            x1, y1 = min(x1, width - 1), min(y1, height - 1)
        boxes.append((x, y, x1, y1))
    return boxes or [(0, 0, 0, 0)]


def box_mask(score_map: np.ndarray, threshold: float, clip_last: bool = True) -> np.ndarray:
    """(h, w) float32, 1 inside any box."""
    mask = np.zeros(score_map.shape, dtype=np.float32)
    for x0, y0, x1, y1 in score_boxes(score_map, threshold, clip_last):
        mask[y0:y1, x0:x1] = 1
    return mask


def local_features(clip: OracleCLIP, x: Tensor) -> Tensor:
    """The last block with every token attending to itself only (mask -100 off the diagonal), unit norm (1+N, D)."""
    tokens = x.shape[0]
    bias = torch.full((tokens, tokens), -100.0)
    bias.fill_diagonal_(0)
    return F.normalize(clip.project(clip.visual_block(x, clip.depth, bias)[0]), dim=-1)


def reidentify(clip: OracleCLIP, image: Tensor, refined: Tensor, grid, local: Tensor, text: Tensor, t: float) -> Tensor:
    """Class-wise re-identification with the published degenerate-box behaviour."""
    height, width = grid
    scores = local.clone()
    low, high = refined.min(), refined.max()
    side = clip.native * clip.patch
    for c in range(len(local)):
        if not local[c] > low + t * (high - low):
            continue
        mask = (minmax(refined[:, c]) > 0.5).reshape(height, width)
        rows, columns = mask.nonzero(as_tuple=True)
        x0, x1 = int(columns.min()), min(int(columns.max()) + 1, width - 1)
        y0, y1 = int(rows.min()), min(int(rows.max()) + 1, height - 1)
        if x0 == x1 or y0 == y1:
            break
        p = clip.patch
        crop = image[:, y0 * p : y1 * p, x0 * p : x1 * p]
        crop = F.interpolate(crop[None], size=(side, side), mode="bilinear", align_corners=False)[0]
        small = mask[y0:y1, x0:x1].float()[None, None]
        small = F.interpolate(small, size=(clip.native, clip.native), mode="nearest")[0, 0]
        bias = torch.zeros(1 + clip.native**2, 1 + clip.native**2)
        bias[0, 1:] = torch.where(small.flatten() > 0, 0.0, -1000.0)
        feature = clip.encode_image(crop, bias=bias)
        g = (clip.logit_scale * feature @ text.T).softmax(dim=-1)[c]
        scores[c] = 0.5 * local[c] + 0.5 * g
    return scores


@torch.no_grad()
def tag_image(
    clip: OracleCLIP,
    image: Tensor,
    text: Tensor,
    targets: int,
    *,
    threshold: float = 0.5,
    all_layers: bool = False,
    use_cwr: bool = True,
) -> TagTrace:
    """Everything that section 1 computes for one image.

    Args:
        image: (3, H, W) normalised, sides multiples of the patch.
        text: (C, D) unit norm, targets first, then background words.
        targets: number of target classes.
        threshold: t of CWR and of the tag rule (0.5; COCO-Stuff 0.1).
        all_layers: affinity from blocks 1..L-1 (COCO-Stuff) instead of L-3..L-1.
    """
    x, maps, grid = clip.trunk(image, "off_native")
    features = local_features(clip, x)
    coarse = (clip.logit_scale * features[1:] @ text.T).softmax(dim=-1)

    votes = torch.zeros_like(maps[0])
    for attention in maps:
        votes = votes + (attention > attention.mean()).float()
    vote_mask = votes >= -(-clip.depth // 3)
    chosen = maps[: clip.depth - 1] if all_layers else maps[clip.depth - 4 : clip.depth - 1]
    affinity = torch.stack(chosen).mean(dim=0) * vote_mask

    first = affinity @ coarse
    refined = torch.empty_like(first)
    for c in range(text.shape[0]):
        class_map = minmax(first[:, c]).reshape(grid).numpy()
        mask = torch.from_numpy(box_mask(class_map, float(class_map.mean()))).flatten()
        refined[:, c] = (affinity * mask[None, :]) @ coarse[:, c]
    local = refined[:, :targets].max(dim=0).values

    scores = reidentify(clip, image, refined, grid, local, text, threshold) if use_cwr else local.clone()
    low, high = scores.min(), scores.max()
    tags = [c for c in range(targets) if scores[c] > low + threshold * (high - low)] or [int(scores.argmax())]
    return TagTrace(grid, maps, features, coarse, vote_mask, affinity, first, refined, local, scores, tags)

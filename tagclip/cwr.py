"""Class-wise re-identification (TagCLIP, arXiv 2312.12828, section "CWR"): look again at each likely class's region."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.boxes import scale_maps, tight_boxes
from tagclip.clip import FrozenCLIP, Grid
from tagclip.clip.encoder import PositionRounding
from tagclip.config import CWRConfig


class Regions(NamedTuple):
    """Regions to look at again, M of them, ordered by image, then by class.

    Attributes:
        image, label: which image of the batch and which class, (M,) int64.
        masks: patches on the class, (M, h, w) bool.
        boxes: x0, y0, x1, y1 in patches, ends exclusive, (M, 4) int64.
    """

    image: Tensor
    label: Tensor
    masks: Tensor
    boxes: Tensor


def find_candidates(local: Tensor, patch_scores: Tensor, threshold: float) -> Tensor:
    """Target classes with s_c > lo + t (hi - lo), lo and hi over all patches and classes of the image.

    Args:
        local: s, (B, targets).
        patch_scores: R, (B, N, C).

    Returns:
        (B, targets) bool.
    """
    return local > candidate_border(patch_scores, threshold)


def candidate_border(patch_scores: Tensor, threshold: float) -> Tensor:
    """The score that a class of each image must exceed to be looked at again, see `find_candidates`; (B, 1)."""
    low, high = patch_scores.amin(dim=(1, 2)), patch_scores.amax(dim=(1, 2))
    return (low + threshold * (high - low))[:, None]


def find_regions(candidates: Tensor, patch_scores: Tensor, grid: Grid, config: CWRConfig) -> Regions:
    """Mask and tight box of every candidate class; candidates with a box without area are left out.

    Args:
        candidates: (B, targets) bool.
        patch_scores: R, (B, N, C), N = grid.count.
    """
    image, label = candidates.nonzero(as_tuple=True)
    maps = patch_scores[image, :, label].reshape(-1, grid.height, grid.width)
    masks = scale_maps(maps) > config.mask_threshold
    boxes = tight_boxes(masks, clip_last=config.clip_boxes)
    usable = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if config.stop_at_degenerate:
        usable = _before_first_failure(usable, image)
    return Regions(image[usable], label[usable], masks[usable], boxes[usable])


def _before_first_failure(usable: Tensor, image: Tensor) -> Tensor:
    """usable, but False from an image's first unusable entry on; entries are ordered by image. Both (M,)."""
    failures = (~usable).long().cumsum(dim=0)
    starts = torch.searchsorted(image, image)  # index of the first entry of the same image
    before = failures[starts] - (~usable[starts]).long() if len(image) else failures
    return failures == before


def cut_regions(images: Tensor, regions: Regions, patch_size: int, native: Grid) -> tuple[Tensor, Tensor]:
    """Crops of the normalised input and their masks, brought to the model's native input.

    Args:
        images: (B, 3, H, W) normalised.

    Returns:
        crops (M, 3, native pixels), bilinear, not antialiased; masks (M, native grid) bool, nearest.
    """
    size = (native.height, native.width)
    pixels = (native.height * patch_size, native.width * patch_size)
    crops, masks = [], []
    for image, mask, box in zip(regions.image.tolist(), regions.masks, regions.boxes.tolist(), strict=True):
        x0, y0, x1, y1 = box
        crop = images[image, :, y0 * patch_size : y1 * patch_size, x0 * patch_size : x1 * patch_size]
        crops.append(F.interpolate(crop[None].float(), size=pixels, mode="bilinear", align_corners=False))
        masks.append(F.interpolate(mask[None, None, y0:y1, x0:x1].float(), size=size, mode="nearest")[0] > 0)
    return torch.cat(crops), torch.cat(masks)


def reidentify(
    clip: FrozenCLIP,
    images: Tensor,
    local: Tensor,
    patch_scores: Tensor,
    classifier: Tensor,
    grid: Grid,
    config: CWRConfig,
    *,
    position_rounding: PositionRounding = "none",
    candidates: Tensor | None = None,
) -> Tensor:
    """Final scores: s_c <- w s_c + (1 - w) g_c for candidates, g_c the probability of c for the masked crop.

    The crops of all images and classes of the batch are encoded together, `config.chunk_size` at a time.

    Args:
        images: the batch that the scores belong to, (B, 3, H, W) normalised.
        local: s, (B, targets).
        patch_scores: R, (B, N, C).
        classifier: T, (C, D), unit norm.
        candidates: classes to look at again, (B, targets) bool; by default those of `find_candidates`.

    Returns:
        (B, targets) fp32.
    """
    if candidates is None:
        candidates = find_candidates(local, patch_scores, config.threshold)
    regions = find_regions(candidates, patch_scores, grid, config)
    scores = local.clone()
    for part in _chunks(regions, config.chunk_size):
        crops, masks = cut_regions(images, part, clip.patch_size, clip.native_grid)
        features = clip.encode_masked(
            crops, masks, bias=config.attention_bias, position_rounding=position_rounding
        ).float()
        probabilities = (clip.logit_scale * (features @ classifier.T)).softmax(dim=-1)
        again = probabilities.gather(1, part.label[:, None])[:, 0]
        weight = config.local_weight
        scores[part.image, part.label] = weight * local[part.image, part.label] + (1 - weight) * again
    return scores


def _chunks(regions: Regions, size: int) -> Iterator[Regions]:
    for start in range(0, len(regions.image), size):
        yield Regions(*(part[start : start + size] for part in regions))

"""Class maps averaged over scales and mirror images (optional; neither TagCLIP nor CLIP-ES does it)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.clip import Grid, Trunk
from wsss.maps.class_maps import ClassMaps
from wsss.maps.source import ClassMapSource


@dataclass(frozen=True)
class View:
    """A way to look at an image: `scale` times its size, mirrored or not."""

    scale: float
    flipped: bool

    def of(self, images: Tensor, patch_size: int) -> Tensor:
        """A batch (B, 3, H, W) of prepared images in this view; both sides stay multiples of the patch size."""
        size = [max(1, round(side * self.scale / patch_size)) * patch_size for side in images.shape[2:]]
        if tuple(size) != tuple(images.shape[2:]):
            images = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        return images.flip(-1) if self.flipped else images

    def back(self, found: ClassMaps, grid: Grid) -> ClassMaps:
        """Maps of this view as the plain view would show them, on its patch grid."""
        raw, refined, maps = (self._map_back(one, grid) for one in (found.raw, found.refined, found.maps))
        return replace(found, raw=raw, refined=refined, maps=maps)

    def _map_back(self, maps: np.ndarray, grid: Grid) -> np.ndarray:
        values = torch.from_numpy(maps)
        if self.flipped:
            values = values.flip(-1)
        shape = (grid.height, grid.width)
        if len(values) and tuple(values.shape[1:]) != shape:
            values = F.interpolate(values[None], shape, mode="bilinear", align_corners=False)[0]
        return values.reshape(-1, *shape).numpy()


def maps_over_views(
    source: ClassMapSource,
    trunk: Trunk,
    images: Tensor,
    tag_indices: Sequence[Sequence[int]],
    make_trunk: Callable[[Tensor], Trunk],
) -> list[ClassMaps]:
    """Maps of a batch, averaged over the views of `source.config.views`.

    Args:
        source: makes the maps.
        trunk: of the plain view, made with (at least) the source's request. It is all that is needed without others.
        images: the prepared images of that trunk, (B, 3, H, W).
        tag_indices: class indices of each image.
        make_trunk: runs the model on a batch of another view, with the source's request.
    """
    found = source.maps_from_trunk(trunk, tag_indices)
    views = [View(scale, flipped) for scale, flipped in source.config.views.others]
    if not views or not any(len(indices) for indices in tag_indices):
        return found
    collected = [[one] for one in found]
    patch_size = images.shape[2] // trunk.grid.height
    for view in views:
        seen = view.of(images, patch_size)
        # No more patches at a time than the plain view had.
        step = max(1, images[:, 0].numel() // seen[0, 0].numel())
        for first in range(0, len(seen), step):
            part = slice(first, first + step)
            for number, one in enumerate(source.maps_from_trunk(make_trunk(seen[part]), tag_indices[part])):
                collected[first + number].append(view.back(one, trunk.grid))
    return [source.merge_views(results) for results in collected]

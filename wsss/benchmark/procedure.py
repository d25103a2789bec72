"""Both stages on one trunk pass, put together from the packages' functions so that every stage can be timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.boxes import box_masks
from tagclip.clip import FrozenCLIP, Trunk
from tagclip.clip.trunk import AttentionRequest
from tagclip.cwr import find_regions, reidentify
from tagclip.dmar import coarse_scores, local_scores, masked_affinity, refine_scores
from tagclip.errors import UsageError
from tagclip.images import decode_image, prepare_image
from wsss.benchmark.measure import Clock
from wsss.benchmark.workload import ClassRows, Photo
from wsss.config import MaskConfig
from wsss.maps.affinity import refine_cams, sinkhorn
from wsss.maps.gradcam import scale_to_unit, softmax_gradcam
from wsss.masks.label_map import label_scores
from wsss.pipeline.recipe import Recipe


@dataclass
class PhotoResult:
    """Results of one photo with K tags, as numpy arrays.

    Attributes:
        scores: of the target classes, (targets,).
        raw, refined: on the patch grid, (K, h, w), before and after the affinity; refined before scaling.
        labels_scores: maps that a mask is made from at the photo's size, background first, (1 + K, H, W).
        crops: of CWR.
    """

    scores: np.ndarray
    raw: np.ndarray
    refined: np.ndarray
    label_scores: np.ndarray
    crops: int


class FastProcedure:
    """Ours. Stages: prepare, trunk, local head, DMAR, CWR, CAM, CAA, upsample.

    Args:
        recipe: classes and constants of both stages. The local attention is always the exact one, which gives the
            same outputs.
        rows: text rows.
        cam_precision: see `CamConfig.precision`; None: the recipe's.
    """

    stage_one = ("prepare", "trunk", "local head", "DMAR", "CWR")

    def __init__(self, clip: FrozenCLIP, recipe: Recipe, rows: ClassRows, cam_precision: str | None = None):
        self.clip, self.vocabulary = clip, recipe.vocabulary
        self.tagging = replace(recipe.tagging, local_attention="local")
        chosen = {} if cam_precision is None else {"cam": {"precision": cam_precision}}
        self.masks = MaskConfig.from_dict(chosen, recipe.masks)
        self.rows = [
            torch.from_numpy(values).to(clip.device) for values in (rows.tagging, rows.cam, rows.cam_background)
        ]
        self._votes_range = self.tagging.dmar.block_range(clip.depth)
        self._cam_range = self.masks.affinity.block_range(clip.depth)
        self.request = AttentionRequest(votes=True, ranges=tuple(dict.fromkeys((self._votes_range, self._cam_range))))

    @torch.no_grad()
    def __call__(self, photos: Sequence[Photo], clock: Clock) -> list[PhotoResult]:
        """Results of a batch of photos of one size, each for its own tags."""
        with clock("prepare"):
            images = self.prepare(photos)
        with clock("trunk"):
            trunk = self.trunk(images)
        local, patch_scores = self.tag_locally(trunk, clock)
        with clock("CWR"):
            candidates = torch.zeros_like(local, dtype=torch.bool)
            for image, photo in enumerate(photos):
                candidates[image, list(photo.labels)] = True
            scores = reidentify(
                self.clip, images, local, patch_scores, self.rows[0], trunk.grid, self.tagging.cwr,
                position_rounding=self.tagging.image.position_rounding, candidates=candidates,
            ).cpu().numpy()  # fmt: skip
        outcomes = [self._maps(trunk, image, photo, clock) for image, photo in enumerate(photos)]
        regions = find_regions(candidates, patch_scores, trunk.grid, self.tagging.cwr)
        for image, outcome in enumerate(outcomes):
            outcome.scores, outcome.crops = scores[image], int((regions.image == image).sum())
        return outcomes

    def prepare(self, photos: Sequence[Photo]) -> Tensor:
        """Decoded and prepared photos of one size, (B, 3, H, W) on the model's device."""
        clip, image = self.clip, self.tagging.image
        decoded = (decode_image(photo.path, apply_exif=image.apply_exif) for photo in photos)
        inputs = [
            prepare_image(rgb, clip.patch_size, clip.mean, clip.std, max_long_side=image.max_long_side)
            for rgb in decoded
        ]
        return torch.stack(inputs).to(clip.device)

    def trunk(self, images: Tensor) -> Trunk:
        """The one pass that both stages share.

        Raises:
            UsageError: the stages round this grid's positional embedding differently, so they cannot share it.
        """
        grid = tuple(side // self.clip.patch_size for side in images.shape[-2:])
        native = (self.clip.native_grid.height, self.clip.native_grid.width)
        roundings = {self.tagging.image.position_rounding, self.masks.image.position_rounding}
        if len(roundings) > 1 and grid == native:
            raise UsageError("photos of the model's native size have no shared trunk in the reference preset: "
                             "choose another --size or --preset default")  # fmt: skip
        return self.clip.trunk(images, self.request, position_rounding=self.tagging.image.position_rounding)

    def tag_locally(self, trunk: Trunk, clock: Clock) -> tuple[Tensor, Tensor]:
        """Local scores (B, targets) and refined patch scores (B, N, C)."""
        clip, dmar = self.clip, self.tagging.dmar
        with clock("local head"):
            tokens = clip.last_block(trunk.tokens, self.tagging.local_attention)
            features = F.normalize(clip.project(tokens[:, 1:]).float(), dim=-1)
            coarse = coarse_scores(features, self.rows[0], clip.logit_scale)
        with clock("DMAR"):
            votes = dmar.votes_needed(clip.depth)
            affinity = masked_affinity(trunk.affinity[self._votes_range], trunk.votes, votes)
            refined = refine_scores(coarse, affinity, trunk.grid, dmar).scores
            return local_scores(refined, len(self.vocabulary)), refined

    def _maps(self, trunk: Trunk, image: int, photo: Photo, clock: Clock) -> PhotoResult:
        config, labels = self.masks, list(photo.labels)
        with clock("CAM"):
            found = softmax_gradcam(
                self.clip, trunk.tokens[image], trunk.grid, self.rows[1][labels], self.rows[2], config.cam
            )
        with clock("CAA"):
            affinity = config.affinity
            boxes = box_masks(found.maps, affinity.box_threshold, clip_last=affinity.clip_boxes)
            propagation = sinkhorn(trunk.affinity[self._cam_range][image], affinity.sinkhorn_rounds)
            refined = refine_cams(found.maps, boxes, propagation, propagations=affinity.propagations)
            scaled = scale_to_unit(refined, config.cam.epsilon).cpu().numpy()
        with clock("upsample"):
            maps = label_scores(scaled, photo.size, config)
        return PhotoResult(np.empty(0), found.maps.cpu().numpy(), refined.cpu().numpy(), maps, 0)

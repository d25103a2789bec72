"""Class activation maps refined by attention affinity (CLIP-ES, arXiv 2212.09506)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagclip.boxes import box_masks
from tagclip.clip import AttentionRequest, FrozenCLIP, Trunk, build_text_classifier
from tagclip.errors import UsageError
from tagclip.precision import exact_float32
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.maps.affinity import refine_cams, sinkhorn
from wsss.maps.class_maps import ClassMaps
from wsss.maps.gradcam import scale_to_unit, softmax_gradcam, softmax_gradcam_together
from wsss.maps.source import ClassMapSource


class GradCamSource(ClassMapSource):
    """Class maps by softmax Grad-CAM and class-aware attention affinity.

    Args:
        clip: the frozen model.
        vocabulary: target classes and background words.
        preset: "default", or "reference" for the published implementation's behaviour in every detail. Both have
            CLIP-ES's constants, whatever the vocabulary: see `MaskConfig.preset` for those of a data set.
        config: settings in place of the preset's.
        cache_dir: where the text classifier is kept between runs; None keeps nothing.

    Attributes:
        tag_rows, background_rows: unit-norm text rows of the classes, (C, D), and of the background words, (B, D).
        request: what a trunk must collect for `maps_from_trunk`.

    Raises:
        UsageError: more classes than a mask can hold, or affinity blocks that the model does not have.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        vocabulary: Vocabulary,
        preset: str = "default",
        *,
        config: MaskConfig | None = None,
        cache_dir: Path | str | None = None,
    ):
        super().__init__(clip, vocabulary, config or MaskConfig.preset(preset))
        cam = self.config.cam
        names = vocabulary.cam_prompts_reference if cam.reference_names else vocabulary.cam_prompts
        rows = build_text_classifier(clip, [*names, *vocabulary.cam_background], [cam.template], cache_dir=cache_dir)
        self.tag_rows, self.background_rows = rows[: len(vocabulary)], rows[len(vocabulary) :]
        self._range = self.config.affinity.block_range(clip.depth)

    @property
    def request(self) -> AttentionRequest:
        """What `maps_from_trunk` needs of the attention maps."""
        return AttentionRequest(ranges=(self._range,))

    @torch.no_grad()
    @exact_float32()
    def maps_from_trunk(self, trunk: Trunk, tag_indices: Sequence[Sequence[int]]) -> list[ClassMaps]:
        """Class maps of a batch; see `ClassMapSource.maps_from_trunk`."""
        self.check_count(trunk, tag_indices)
        if self._range not in trunk.affinity:
            raise UsageError(f"the trunk was made without the mean attention of blocks {self._range}: pass `request`")
        if trunk.tokens.device.type != "cpu" and any(len(indices) for indices in tag_indices):
            return self._maps_together(trunk, [list(indices) for indices in tag_indices])
        return [self._maps_of(trunk, image, list(indices)) for image, indices in enumerate(tag_indices)]

    def _maps_together(self, trunk: Trunk, tags: Sequence[list[int]]) -> list[ClassMaps]:
        """All images of the batch in the same kernels, and their results copied at once."""
        config = self.config
        rows = [self.tag_rows[indices] for indices in tags]
        raw, probabilities = softmax_gradcam_together(
            self.clip, trunk.tokens, trunk.grid, rows, self.background_rows, config.cam
        )
        boxes = box_masks(raw, config.affinity.box_threshold, clip_last=config.affinity.clip_boxes)

        def refine(attention: Tensor, maps: Tensor, boxes: Tensor) -> Tensor:
            propagation = sinkhorn(attention, config.affinity.sinkhorn_rounds)
            return refine_cams(maps, boxes, propagation, propagations=config.affinity.propagations)

        refined = torch.vmap(refine)(trunk.affinity[self._range].float(), raw, boxes)
        scaled = scale_to_unit(refined, config.cam.epsilon)
        arrays = [values.cpu().numpy() for values in (raw, refined, scaled)]
        likely, most = probabilities.cpu().numpy(), raw.shape[1]
        found = []
        for image, indices in enumerate(tags):
            count = len(indices)
            of_raw, of_refined, of_scaled = (values[image, :count] for values in arrays)
            words = likely[image, most if indices else len(likely[image]) :]
            found.append(
                ClassMaps(indices, of_raw, of_refined, of_scaled, np.concatenate([likely[image, :count], words]))
            )
        return found

    def _maps_of(self, trunk: Trunk, image: int, indices: list[int]) -> ClassMaps:
        config, grid = self.config, trunk.grid
        found = softmax_gradcam(
            self.clip, trunk.tokens[image], grid, self.tag_rows[indices], self.background_rows, config.cam
        )
        refined = found.maps
        if indices:
            boxes = box_masks(found.maps, config.affinity.box_threshold, clip_last=config.affinity.clip_boxes)
            propagation = sinkhorn(trunk.affinity[self._range][image].float(), config.affinity.sinkhorn_rounds)
            refined = refine_cams(found.maps, boxes, propagation, propagations=config.affinity.propagations)
        scaled = scale_to_unit(refined, config.cam.epsilon) if indices else refined
        arrays = (values.cpu().numpy() for values in (found.maps, refined, scaled, found.probabilities))
        return ClassMaps(indices, *arrays)

    def merge_views(self, views: Sequence[ClassMaps]) -> ClassMaps:
        """The mean of maps of one image seen in several ways, scaled to [0, 1] again; all on one patch grid."""
        mean = super().merge_views(views)
        if not mean.indices:
            return mean
        scaled = scale_to_unit(torch.from_numpy(mean.maps), self.config.cam.epsilon).numpy()
        return replace(mean, refined=mean.maps, maps=scaled)

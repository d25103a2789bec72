"""Class maps by patch-text surgery and attention affinity (the training-free part of ExCEL, arXiv 2503.20826)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.boxes import box_masks
from tagclip.clip import AttentionRequest, FrozenCLIP, Trunk, build_text_classifier
from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.maps.affinity import refine_cams, sinkhorn
from wsss.maps.class_maps import ClassMaps
from wsss.maps.gradcam import scale_to_unit
from wsss.maps.source import ClassMapSource
from wsss.maps.surgery import normalise_tokens, patch_text_maps, surgery_tokens
from wsss.maps.text_enrichment import attribute_bank, enrich_rows, read_attributes

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of values from 0 to 255


class ExcelSource(ClassMapSource):
    """Class maps from the calibrated last blocks; nothing is differentiated, all classes come from one product.

    Args:
        clip, vocabulary, preset, config, cache_dir: see `wsss.maps.gradcam_source.GradCamSource`; the settings are
            those of `config.excel`.

    Attributes:
        rows: unit-norm text rows of the classes, then of the background words, enriched if there is a file for it.

    Raises:
        UsageError: more classes than a mask can hold, blocks that the model does not have, or an attribute file that
            cannot be read or names a class that is none.
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
        excel = self.config.excel
        if not 1 <= excel.blocks < clip.depth:
            raise UsageError(f"masks.excel.blocks {excel.blocks} is not in 1..{clip.depth - 1}, all blocks but one")
        names = vocabulary.cam_prompts_reference if self.config.cam.reference_names else vocabulary.cam_prompts
        rows = build_text_classifier(
            clip, [*names, *vocabulary.cam_background], [excel.template], cache_dir=cache_dir
        )
        self.rows = rows
        if excel.attributes is not None:
            sentences = read_attributes(excel.attributes)
            unknown = [name for name in sentences if name not in vocabulary.names]
            if unknown:
                raise UsageError(
                    f"attributes {excel.attributes}: {unknown[0]!r} is no class; classes are {vocabulary.names[0]}, ..."
                )
            spoken = {name: _first(names[vocabulary.index(name)]) for name in sentences}
            bank = attribute_bank(clip, sentences, spoken, excel)
            self.rows = enrich_rows(rows[: len(vocabulary)], rows[len(vocabulary) :], bank, excel)
        self._range = excel.affinity.block_range(clip.depth)

    @property
    def request(self) -> AttentionRequest:
        """What `maps_from_trunk` needs of the trunk: inputs of the last blocks and two mean attention maps."""
        depth = self.clip.depth
        first, last = self._range
        spans = ((first, first), (first + 1, last)) if self._sums_heads else (self._range,)
        return AttentionRequest(ranges=spans, keep=tuple(range(depth - self.config.excel.blocks + 1, depth)))

    @property
    def _sums_heads(self) -> bool:
        return self.config.excel.affinity_sums_heads and self._range[0] < self._range[1]

    @torch.no_grad()
    def maps_from_trunk(self, trunk: Trunk, tag_indices: Sequence[Sequence[int]]) -> list[ClassMaps]:
        """Class maps of a batch; see `ClassMapSource.maps_from_trunk`."""
        self.check_count(trunk, tag_indices)
        request = self.request
        missing = [number for number in request.keep if number not in trunk.kept]
        if missing:
            raise UsageError(f"the trunk was made without the input of block {missing[0]}: pass `request`")
        if any(span not in trunk.affinity for span in request.ranges):
            raise UsageError(f"the trunk was made without the mean attention of blocks {self._range}: pass `request`")
        return [self._maps_of(trunk, image, list(indices)) for image, indices in enumerate(tag_indices)]

    def _maps_of(self, trunk: Trunk, image: int, indices: list[int]) -> ClassMaps:
        config, grid = self.config.excel, trunk.grid
        shape = (grid.height, grid.width)
        background = list(range(len(self.vocabulary), len(self.rows)))
        if not indices:
            empty = np.zeros((0, *shape), np.float32)
            return ClassMaps(indices, empty, empty, empty, np.zeros(0, np.float32))
        features = self.features(trunk, image)
        raw = patch_text_maps(features, self.rows)[indices].unflatten(1, shape)
        boxes = box_masks(raw, config.affinity.box_threshold, clip_last=config.affinity.clip_boxes)
        propagation = sinkhorn(self.mean_attention(trunk, image), config.affinity.sinkhorn_rounds)
        refined = refine_cams(raw, boxes, propagation, propagations=config.affinity.propagations)
        scaled = scale_to_unit(refined, self.config.cam.epsilon)
        unit = F.normalize(features[0], dim=-1)
        probabilities = (self.clip.logit_scale * self.rows[indices + background] @ unit).softmax(dim=0)
        arrays = (values.cpu().numpy() for values in (raw, refined, scaled, probabilities))
        return ClassMaps(indices, *arrays)

    def features(self, trunk: Trunk, image: int) -> Tensor:
        """Calibrated features of one image of a batch, [CLS] first, (1 + N, D)."""
        config = self.config.excel
        inputs = {number: trunk.kept[number][image] for number in self.request.keep}
        tokens = surgery_tokens(self.clip, inputs, trunk.tokens[image], config)
        return normalise_tokens(tokens, config.normalise_over_tokens)

    def mean_attention(self, trunk: Trunk, image: int) -> Tensor:
        """Mean attention of the affinity's blocks between patches of one image, (N, N) fp32.

        As published, the first block's map is a mean over heads and the others' are sums.
        """
        if not self._sums_heads:
            return trunk.affinity[self._range][image].float()
        first, rest = (trunk.affinity[span][image].float() for span in self.request.ranges)
        later = self._range[1] - self._range[0]
        return (first + later * self.clip.heads * rest) / (later + 1)

    def merge_views(self, views: Sequence[ClassMaps]) -> ClassMaps:
        """The mean of maps of one image seen in several ways, scaled to [0, 1] again; all on one patch grid."""
        mean = super().merge_views(views)
        if not mean.indices:
            return mean
        scaled = scale_to_unit(torch.from_numpy(mean.maps), self.config.cam.epsilon).numpy()
        return replace(mean, refined=mean.maps, maps=scaled)

    def prepare(self, rgb: np.ndarray) -> Tensor:
        """See `ClassMapSource.prepare`; with `excel.published_input` a square normalised by ImageNet's constants.

        A mean of sources prepares images in its own way, whatever this one would do, and runs refuse the setting.
        """
        size = self.config.excel.published_input
        if size is None:
            return super().prepare(rgb)
        return published_input(rgb, size)


def published_input(rgb: np.ndarray, size: int) -> Tensor:
    """(H, W, 3) uint8 -> (3, size, size) fp32: ImageNet's normalisation first, then a bilinear resize of the floats."""
    values = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)
    values = (values - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    return F.interpolate(values[None], (size, size), mode="bilinear", align_corners=False)[0]


def _first(name: str | Sequence[str]) -> str:
    return name if isinstance(name, str) else name[0]

"""Pseudo masks from a training-free strategy: stage two with another source of maps than Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tagclip.clip.encoder import AttentionRequest, FrozenCLIP, Trunk
from tagclip.errors import UsageError
from tagclip.precision import exact_float32
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.dense.dense_config import DenseConfig
from wsss.dense.features import (
    blocks_to_keep,
    features_after_feedback,
    one_image,
    positions_of,
    prepared,
    strategy_features,
)
from wsss.dense.inference import DenseSegmenter
from wsss.maps.class_maps import ClassMaps
from wsss.maps.source import ClassMapSource


class StrategySource(ClassMapSource):
    """A `ClassMapSource` whose maps are a strategy's class probabilities on the patch grid.

    Everything after the maps (upsampling, background score, CRF or PAMR, ignore label, files) is stage two unchanged:
    a map's complement, 1 - max_k p_k, is what the background words and the other classes leave to the background.

    Args:
        clip, vocabulary, preset, config, cache_dir: see `wsss.maps.gradcam_source.GradCamSource`.
        dense: strategy, its options, logit scale and templates. The vocabulary of an image is its tags plus the
            background words, whatever `dense.vocabulary` says; the image is seen whole, as `config.image` says.

    Raises:
        UsageError: a strategy whose options depend on the image ("auto"): a shared trunk must know them beforehand.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        vocabulary: Vocabulary,
        preset: str = "default",
        *,
        config: MaskConfig | None = None,
        dense: DenseConfig | None = None,
        cache_dir: Path | str | None = None,
    ):
        super().__init__(clip, vocabulary, config or MaskConfig.preset(preset))
        dense = replace(dense or DenseConfig(), vocabulary="all", mode="whole", background_threshold=0.0)
        dense = replace(dense, area_threshold=0.0, propagation=None)
        self.segmenter = DenseSegmenter(clip, vocabulary, dense, cache_dir=cache_dir)
        if "auto" in vars(self.segmenter.strategy.options).values():
            raise UsageError(
                f'strategy {self.segmenter.strategy.name}: "auto" is found image by image; name the blocks for masks'
            )
        if positions_of(clip, self.segmenter.strategy) is not None:
            raise UsageError(
                f'strategy {self.segmenter.strategy.name}: the positions of preset "reference" need a trunk of their '
                "own, which masks share with the tagger; use the default preset for masks"
            )
        size = clip.patch_size * 2
        self.strategy = prepared(clip, torch.zeros(1, 3, size, size, device=clip.device), self.segmenter.strategy)

    @property
    def request(self) -> AttentionRequest:
        """What `maps_from_trunk` needs of the trunk: inputs of a few blocks, no attention maps."""
        return AttentionRequest(keep=blocks_to_keep(self.clip, [self.strategy]))

    @torch.no_grad()
    @exact_float32()
    def maps_from_trunk(self, trunk: Trunk, tag_indices: Sequence[Sequence[int]]) -> list[ClassMaps]:
        """Class probabilities of a batch as maps; see `ClassMapSource.maps_from_trunk`."""
        self.check_count(trunk, tag_indices)
        missing = [number for number in self.request.keep if number not in trunk.kept]
        if missing:
            raise UsageError(f"the trunk was made without the input of block {missing[0]}: pass `request`")
        shape = (trunk.grid.height, trunk.grid.width)
        results = []
        for image, indices in enumerate(tag_indices):
            # Image by image, so that maps do not depend on the others of the batch.
            one = one_image(trunk, image)
            rows = self.segmenter.names(indices).rows
            told = features_after_feedback(self.clip, one, None, rows, self.strategy) if indices else None
            features = strategy_features(self.clip, one, self.strategy)[0] if told is None else told[0]
            maps = self.segmenter.patch_probabilities(features, list(indices))
            arrays = maps.unflatten(1, shape).cpu().numpy()
            results.append(ClassMaps(list(indices), arrays, arrays, arrays, maps.mean(dim=1).cpu().numpy()))
        return results

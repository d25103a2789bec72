"""Class maps of several sources, averaged (neither TagCLIP nor CLIP-ES does it)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

import numpy as np

from tagclip.clip import AttentionRequest, Trunk
from tagclip.errors import UsageError
from wsss.class_maps import CamResult
from wsss.mask_maker import MaskMaker


class FusedMaskGenerator(MaskMaker):
    """A `MaskMaker` whose maps are the mean of other sources' maps, all read off one trunk pass.

    Sources err in different places: Grad-CAM where objects touch, a training-free strategy where a patch by itself says
    little. Everything after the maps is stage two unchanged.

    Args:
        sources: two or more, of one model, vocabulary and config.

    Raises:
        UsageError: fewer than two sources, or sources of different settings.
    """

    def __init__(self, sources: Sequence[MaskMaker]):
        if len(sources) < 2:
            raise UsageError(f"{len(sources)} sources of class maps: a mean needs two or more")
        first = sources[0]
        for other in sources[1:]:
            for name in ("clip", "vocabulary", "config"):
                if getattr(other, name) != getattr(first, name):
                    raise UsageError(f"sources of class maps differ in their {name}: maps of one image need the same")
        super().__init__(first.clip, first.vocabulary, first.config)
        self.sources = list(sources)

    @property
    def request(self) -> AttentionRequest:
        """What `cams_from_trunk` needs of the trunk: what any of the sources needs."""
        return reduce(operator.or_, (source.request for source in self.sources))

    def cams_from_trunk(self, trunk: Trunk, tag_indices: Sequence[Sequence[int]]) -> list[CamResult]:
        """Mean maps of a batch; see `MaskMaker.cams_from_trunk`. `probabilities` are the first source's."""
        parts = [source.cams_from_trunk(trunk, tag_indices) for source in self.sources]
        return [_mean_of_sources(results) for results in zip(*parts, strict=True)]


def _mean_of_sources(results: Sequence[CamResult]) -> CamResult:
    # Only `cams` are on one scale, [0, 1], whatever the source.
    raw_cams = np.mean([result.raw_cams for result in results], axis=0)
    cams = np.mean([result.cams for result in results], axis=0)
    return CamResult(list(results[0].indices), raw_cams, cams, cams, results[0].probabilities)

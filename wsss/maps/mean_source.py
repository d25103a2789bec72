"""Class maps of several sources, averaged (neither TagCLIP nor CLIP-ES does it)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

import numpy as np

from tagclip.clip import AttentionRequest, Trunk
from tagclip.errors import UsageError
from wsss.maps.class_maps import ClassMaps
from wsss.maps.source import ClassMapSource


class MeanSource(ClassMapSource):
    """A `ClassMapSource` whose maps are the mean of other sources' maps, all read off one trunk pass.

    Sources err in different places: Grad-CAM where objects touch, a training-free strategy where a patch by itself says
    little. Everything after the maps is stage two unchanged.

    Args:
        sources: two or more, of one model, vocabulary and config.

    Raises:
        UsageError: fewer than two sources, or sources of different settings.
    """

    def __init__(self, sources: Sequence[ClassMapSource]):
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
        """What `maps_from_trunk` needs of the trunk: what any of the sources needs."""
        return reduce(operator.or_, (source.request for source in self.sources))

    def maps_from_trunk(self, trunk: Trunk, tag_indices: Sequence[Sequence[int]]) -> list[ClassMaps]:
        """Mean maps of a batch; see `ClassMapSource.maps_from_trunk`. `probabilities` are the first source's."""
        parts = [source.maps_from_trunk(trunk, tag_indices) for source in self.sources]
        return [_mean_of_sources(results) for results in zip(*parts, strict=True)]


def _mean_of_sources(results: Sequence[ClassMaps]) -> ClassMaps:
    # Only `maps` are on one scale, [0, 1], whatever the source.
    raw = np.mean([result.raw for result in results], axis=0)
    maps = np.mean([result.maps for result in results], axis=0)
    return ClassMaps(list(results[0].indices), raw, maps, maps, results[0].probabilities)

"""Tags and class maps of a batch, read off one pass of the model: what makes the two stages one."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagclip.clip import AttentionRequest, Grid, Trunk
from tagclip.clip.encoder import PositionRounding
from tagclip.errors import UsageError
from tagclip.tag_files import TagRecord
from tagclip.tagger import ImageTagger
from wsss.maps.class_maps import ClassMaps, weigh_by_scores
from wsss.maps.source import ClassMapSource
from wsss.maps.views import maps_over_views
from wsss.pipeline.batch import finite_results
from wsss.pipeline.run_config import check_same_input
from wsss.pipeline.summary import StageTimes

Decide = Callable[[int, Sequence[int], np.ndarray | None], Sequence[int]]


@dataclass(frozen=True)
class PassResult:
    """What one pass says of one image.

    Attributes:
        indices: classes of its tags, ascending.
        scores: (C,) float32, NaN where not known; None where tags came without scores.
        maps: one per tag.
    """

    indices: list[int]
    scores: np.ndarray | None
    maps: ClassMaps


def shared_request(*requests: AttentionRequest) -> AttentionRequest:
    """One request for all stages of a run.

    Votes are always in it: with them every block's map is computed, so that the tokens of a trunk for maps alone have
    the same last digit as those of a trunk for tags and maps (a fused kernel sums in another order).
    """
    return reduce(operator.or_, requests, AttentionRequest(votes=True))


class _StageClock:
    """Seconds of stages that follow one another; on an accelerator by events, so that nothing waits for the device."""

    def __init__(self, device: torch.device):
        self._cuda = device.type == "cuda"
        self._moments = [("", self._now())]

    def ends(self, stage: str) -> None:
        """A stage ends here; it began where the last one ended."""
        self._moments.append((stage, self._now()))

    def add_to(self, times: StageTimes, images: int) -> None:
        """Counts the stages, of so many images; the device has to have done its work up to the last end."""
        if self._cuda:
            self._moments[-1][1].synchronize()
        for (_, begin), (stage, end) in pairwise(self._moments):
            times.add(stage, begin.elapsed_time(end) / 1000 if self._cuda else end - begin, images)

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class SharedPass:
    """Runs the model once per batch, for tags and class maps together.

    Args:
        source: makes the maps.
        tagger: makes the tags; None where they are known.
        times: seconds of the stages "trunk", "tags" and "cams" are added here.

    Raises:
        UsageError: the two stages see images differently.
    """

    def __init__(self, source: ClassMapSource, tagger: ImageTagger | None = None, *, times: StageTimes | None = None):
        if tagger is not None:
            check_same_input(tagger.config.image, source.config.image)
        self.source, self.tagger, self.times = source, tagger, times or StageTimes()
        self.clip, self.config = source.clip, source.config
        self.request = shared_request(source.request, *([tagger.request] if tagger else []))

    def __call__(
        self, images: Tensor, known: Sequence[TagRecord | None] | None = None, decide: Decide | None = None
    ) -> list[PassResult | None]:
        """Tags and maps of a batch of one patch grid.

        Args:
            images: prepared, (B, 3, H, W) on the model's device.
            known: tags of each image, None where the tagger makes them; without a tagger all are needed.
            decide: has the last word on the tags of an image, before maps are made of them: takes its place in the
                batch, its tags and its scores, and returns its tags.

        Returns:
            One result per image, None where scores or maps are not finite.
        """
        clock, patch = _StageClock(images.device), self.clip.patch_size
        grid = Grid(images.shape[2] // patch, images.shape[3] // patch)
        records: Sequence[TagRecord | None] = [None] * len(images) if known is None else known
        rounding = self.config.image.position_rounding
        tagger = self.tagger if any(record is None for record in records) else None
        if tagger is None and any(record is None for record in records):
            raise UsageError("without a tagger the tags of every image are needed")
        tagging_rounding = tagger.config.image.position_rounding if tagger else rounding
        trunk = self.clip.trunk(images, self.request, position_rounding=tagging_rounding)
        clock.ends("trunk")
        tags: list[tuple[list[int], np.ndarray | None] | None]
        tags = [None if record is None else (list(record.indices), record.scores) for record in records]
        if tagger is not None:
            for place, found in enumerate(finite_results(tagger, tagger.score_trunk(trunk, images), grid)):
                if records[place] is None:
                    tags[place] = None if found is None else (found.indices, found.scores)
            clock.ends("tags")
            if self._rounded(tagging_rounding, grid) != self._rounded(rounding, grid):
                del trunk
                trunk = self.clip.trunk(images, self.request, position_rounding=rounding)
                clock.ends("trunk")
        if decide is not None:
            tags = [
                None if one is None else (list(decide(place, one[0], one[1])), one[1]) for place, one in enumerate(tags)
            ]
        indices = [[] if one is None else one[0] for one in tags]
        maps = maps_over_views(self.source, trunk, images, indices, lambda seen: self._view_trunk(seen, rounding))
        results = [None if one is None else self._result(*one, found) for one, found in zip(tags, maps, strict=True)]
        clock.ends("cams")
        clock.add_to(self.times, len(images))
        return results

    def _result(self, indices: list[int], scores: np.ndarray | None, maps: ClassMaps) -> PassResult | None:
        certain = None if scores is None else scores[indices].tolist()
        maps = weigh_by_scores(maps, certain, self.config.score_power)
        return PassResult(indices, scores, maps) if np.isfinite(maps.maps).all() else None

    def _view_trunk(self, images: Tensor, rounding: PositionRounding) -> Trunk:
        """Of another view, for maps alone: the same whether tags are made in this pass or known."""
        return self.clip.trunk(images, self.source.request, position_rounding=rounding)

    def _rounded(self, rounding: PositionRounding, grid: Grid) -> bool:
        return rounding == "float16" or (rounding == "float16_off_native" and grid != self.clip.native_grid)

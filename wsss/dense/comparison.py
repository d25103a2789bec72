"""Strategies x vocabularies on one data set in one run: mIoU, and the time that each takes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from tagclip.arguments import as_names
from tagclip.clip.encoder import FrozenCLIP
from tagclip.config import ImageConfig, TagCLIPConfig
from tagclip.errors import UsageError
from tagclip.images import decode_image
from tagclip.stored_files import FilePlace
from tagclip.tagger import TagCLIP
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.dense.comparison_report import Row
from wsss.dense.dense_config import DenseConfig
from wsss.dense.features import prepared
from wsss.dense.inference import DenseSegmenter
from wsss.dense.strategy import Strategy, get_strategy
from wsss.evaluation.mask_checks import PreflightConfig, check_pairs
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer
from wsss.files.mask_files import ignore_label, read_mask, with_ignored_value
from wsss.maps.excel_source import ExcelSource
from wsss.maps.gradcam_source import GradCamSource
from wsss.maps.source import ClassMapSource
from wsss.masks.generator import MaskGenerator

VOCABULARIES = ("all", "tags", "labels")
# Maps of stage two beside the strategies: softmax Grad-CAM and class-aware affinity, and patch-text surgery.
SOURCES: dict[str, type[GradCamSource | ExcelSource]] = {"cam": GradCamSource, "excel": ExcelSource}
REFERENCE = "clip"


@dataclass(frozen=True)
class CompareConfig:
    """What is compared.

    Attributes:
        strategies: names or files of strategies; "cam" is Grad-CAM + CAA, "excel" ExCEL, their masks without CRF.
        vocabularies: any of "all", "tags", "labels".
        dense: settings common to all strategies; its own strategy, options and vocabulary do not count. Its `tagging`
            holds the tagger's constants for the data set.
        masks: constants of "cam" and "excel" for the data set; its image settings, refiner and confidence do not count.
        timed_images: images on which each combination is run and timed by itself, in turn, after one round that
            does not count; 0: none.
        ignore_index: label of the ground truth that is not scored; None: 255, or 65535 of more labels than 255.
    """

    strategies: tuple[str, ...]
    vocabularies: tuple[str, ...] = VOCABULARIES
    dense: DenseConfig = field(default_factory=DenseConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    timed_images: int = 10
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "strategies", as_names(self.strategies, "strategies"))
        object.__setattr__(self, "vocabularies", as_names(self.vocabularies, "vocabularies"))
        for name in self.vocabularies:
            if name not in VOCABULARIES:
                raise UsageError(f"vocabulary {name!r}: choose from {', '.join(VOCABULARIES)}")
        if not self.strategies or not self.vocabularies:
            raise UsageError("name at least one strategy and one vocabulary")


class Comparison:
    """Runs strategies under vocabularies on the images of a data set.

    Args:
        clip: the frozen model.
        vocabulary: classes of the data set; masks hold 0 and c + 1, or c without background.
        config: what is compared.
        cache_dir: where text classifiers are kept between runs.
    """

    def __init__(
        self, clip: FrozenCLIP, vocabulary: Vocabulary, config: CompareConfig, *, cache_dir: Path | str | None = None
    ):
        self.clip, self.vocabulary, self.config = clip, vocabulary, config
        compared = _by_name(config.strategies)
        self.strategies = {name: strategy for name, strategy in compared.items() if strategy is not None}
        tagging = TagCLIPConfig.from_dict(config.dense.tagging)
        image = ImageConfig(config.dense.apply_exif, config.dense.max_long_side)
        self.tagger = None
        if "tags" in config.vocabularies:
            self.tagger = TagCLIP(clip, vocabulary, config=replace(tagging, image=image), cache_dir=cache_dir)
        base = replace(config.dense, strategy=REFERENCE, options={}, vocabulary="all")
        self.segmenter = DenseSegmenter(clip, vocabulary, base, tagger=self.tagger, cache_dir=cache_dir)
        masks = replace(config.masks, image=image, refiner="none", confidence=None)
        self.sources = {
            name: SOURCES[name](clip, vocabulary, config=masks, cache_dir=cache_dir)
            for name, strategy in compared.items()
            if strategy is None
        }
        self.ignored = ignore_label(vocabulary.label_count) if config.ignore_index is None else config.ignore_index
        scoring = MaskEvaluationConfig(ignore_index=self.ignored, boundary_width=0)
        self.scorers = {
            (strategy, name): MaskScorer(scoring) for strategy in compared for name in config.vocabularies
        }

    def run(
        self, pairs: Sequence[tuple[FilePlace, FilePlace]], progress: Callable[[int], object] = lambda done: None
    ) -> list[Row]:
        """Score all (image, mask) pairs, time the first few.

        Raises:
            RunError: masks that do not belong to their images or classes (`wsss.evaluation.mask_checks`); they are all
                looked at before the first image is.
            ImageError: an image that cannot be decoded.
        """
        looks = PreflightConfig(apply_exif=self.config.dense.apply_exif, ignore_index=self.ignored)
        check_pairs(pairs, self.vocabulary.label_names, looks)
        for image, mask in pairs:
            self.score(*self._read(image, mask))
            progress(1)
        seconds = self.times(pairs[: self.config.timed_images])
        rows = []
        for (strategy, name), scorer in self.scorers.items():
            scores = scorer.scores(self.vocabulary.label_names)
            taken = seconds.get((strategy, name), float("nan"))
            relative = taken / seconds.get((REFERENCE, name), float("nan"))
            rows.append(Row.of(strategy, name, scores, taken, relative, self.vocabulary.has_background))
        return rows

    def _read(self, image: FilePlace, mask: FilePlace) -> tuple[np.ndarray, np.ndarray]:
        rgb = decode_image(image, apply_exif=self.config.dense.apply_exif)
        return rgb, with_ignored_value(read_mask(mask), self.ignored)

    @torch.no_grad()
    def score(self, rgb: np.ndarray, truth: np.ndarray) -> None:
        """Every combination on one image; one trunk serves all strategies, and the tagger of a whole image."""
        segmenter, view = self.segmenter, self.segmenter.view(rgb)
        first = view.inputs[: segmenter.config.window_batch].to(self.clip.device)
        strategies = [prepared(self.clip, first, strategy) for strategy in self.strategies.values()]
        features, tags = segmenter.features(view, strategies, rgb if self.tagger is not None else None)
        for vocabulary in self.config.vocabularies:
            classes = self._classes(vocabulary, truth, None if tags is None else tags.indices)
            names = segmenter.names(classes)
            for strategy, ready, one in zip(self.strategies, strategies, features, strict=True):
                labels = segmenter.labels(view, one, names, rgb, ready).labels.cpu().numpy().astype(segmenter.dtype)
                self.scorers[strategy, vocabulary].update(labels, truth)
            for name, source in self.sources.items():
                self.scorers[name, vocabulary].update(self._source_labels(source, rgb, classes), truth)

    def times(self, pairs: Sequence[tuple[FilePlace, FilePlace]]) -> dict[tuple[str, str], float]:
        """Mean seconds an image of each combination by itself: from decoded image to label map, tagging included."""
        decoded = [self._read(image, mask) for image, mask in pairs]
        totals = dict.fromkeys(self.scorers, 0.0)
        for index, (rgb, truth) in enumerate([*decoded[:1], *decoded]):
            for key in totals:  # in turn, so that a busy moment of the machine hits all alike
                start = time.perf_counter()
                self._alone(*key, rgb, truth)
                if self.clip.device.type == "cuda":
                    torch.cuda.synchronize(self.clip.device)
                if index:  # the first round only warms up
                    totals[key] += time.perf_counter() - start
        return {key: total / len(decoded) for key, total in totals.items()} if decoded else {}

    @torch.no_grad()
    def _alone(self, strategy: str, vocabulary: str, rgb: np.ndarray, truth: np.ndarray) -> None:
        tagging = vocabulary == "tags"
        if strategy in self.sources:
            tags = self.tagger(rgb).indices if tagging and self.tagger is not None else None
            self._source_labels(self.sources[strategy], rgb, self._classes(vocabulary, truth, tags))
            return
        segmenter, view = self.segmenter, self.segmenter.view(rgb)
        first = view.inputs[: segmenter.config.window_batch].to(self.clip.device)
        ready: Strategy = prepared(self.clip, first, self.strategies[strategy])
        (features,), tags = segmenter.features(view, [ready], rgb if tagging else None)
        classes = self._classes(vocabulary, truth, None if tags is None else tags.indices)
        segmenter.labels(view, features, segmenter.names(classes), rgb, ready)

    def _classes(self, vocabulary: str, truth: np.ndarray, tags: list[int] | None) -> list[int]:
        if vocabulary == "all":
            return list(range(len(self.vocabulary)))
        if vocabulary == "tags":
            assert tags is not None  # there is a tagger
            return tags
        offset = 1 if self.vocabulary.has_background else 0
        present = (int(label) - offset for label in np.unique(truth) if label != self.ignored)
        return [index for index in present if index >= 0]

    def _source_labels(self, source: ClassMapSource, rgb: np.ndarray, classes: list[int]) -> np.ndarray:
        if not classes and not self.vocabulary.has_background:
            classes = list(range(len(self.vocabulary)))
        inputs = source.prepare(rgb)[None].to(self.clip.device)
        found = source.maps_from_trunk(source.trunk(inputs), [classes])[0]
        return MaskGenerator(source).mask_from_maps(rgb, found.maps, classes).labels


def _by_name(given: Iterable[str]) -> dict[str, Strategy | None]:
    """Strategies by their own names, or by the path of a file whose name is taken already; None for a source."""
    found: dict[str, Strategy | None] = {}
    for one in given:
        strategy = None if one in SOURCES else get_strategy(one)
        name = one if strategy is None else strategy.name
        found[one if name in found else name] = strategy
    return found

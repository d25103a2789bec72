"""MaskGenerator: an image and its tags -> class maps -> pseudo mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from tagclip.arguments import ImageInput, as_images, as_names, is_one_image
from tagclip.clip import FrozenCLIP
from tagclip.errors import UsageError
from tagclip.images import decode_image
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.maps.class_maps import weigh_by_scores
from wsss.maps.gradcam_source import GradCamSource
from wsss.maps.source import ClassMapSource
from wsss.maps.views import maps_over_views
from wsss.masks.label_map import LabelMap, mask_from_maps


@dataclass
class MaskResult:
    """Class maps and mask of one image.

    Attributes:
        tags: names of the classes of the maps, and indices: their positions in the vocabulary.
        raw: maps before the affinity, (K, h, w) float32 in [0, 1] on the patch grid.
        refined: after the affinity, (K, h, w) float32, before the last scaling.
        maps: refined maps scaled to [0, 1], (K, h, w) float32.
        probabilities: of the K tags and the background words, (K + B,) float32.
        mask: (H, W) uint8: 0 background and class c -> c + 1 (without background: c -> c), 255 where confidence is low.
            uint16, and 65535, for more labels than 255.
        labels: (H, W), the same without 255 or 65535.
        confidence: (H, W) float32, highest label probability of each pixel.
        label_probabilities: (1 + K, H, W) float32 if asked for, else None.
    """

    tags: list[str]
    indices: list[int]
    raw: np.ndarray
    refined: np.ndarray
    maps: np.ndarray
    probabilities: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    label_probabilities: np.ndarray | None = None


class MaskGenerator:
    """Makes pseudo masks of images whose tags are known.

    Args:
        source: where class maps come from; or a model, whose class activation maps (CLIP-ES, arXiv 2212.09506) are
            then taken, with the four arguments that follow.
        vocabulary: target classes and background words.
        preset: "default", or "reference" for the published implementation's behaviour in every detail. Both have
            CLIP-ES's constants, whatever the vocabulary: see `MaskConfig.preset` for those of a data set.
        config: settings in place of the preset's; with a source, its own settings are the default.
        cache_dir: where the text classifier is kept between runs; None keeps nothing.

    Attributes:
        source, vocabulary, config: as given.

    Raises:
        UsageError: a model without a vocabulary, more classes than a mask can hold, or affinity blocks that the model
            does not have.

    Example:
        >>> generator = MaskGenerator(load_clip("demo"), Vocabulary.named("voc"))  # doctest: +SKIP
        >>> generator("street.jpg", tags=["bus", "person"]).mask.shape  # doctest: +SKIP
        (375, 500)
    """

    def __init__(
        self,
        source: ClassMapSource | FrozenCLIP,
        vocabulary: Vocabulary | None = None,
        preset: str = "default",
        *,
        config: MaskConfig | None = None,
        cache_dir: Path | str | None = None,
    ):
        if not isinstance(source, ClassMapSource):
            if vocabulary is None:
                raise UsageError("MaskGenerator(model) needs a vocabulary: MaskGenerator(model, Vocabulary([...]))")
            source = GradCamSource(source, vocabulary, preset, config=config, cache_dir=cache_dir)
        self.source, self.vocabulary = source, source.vocabulary
        self.config = (config or source.config).for_labels(self.vocabulary.label_count)

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        images: ImageInput,
        tags: str | Sequence[str],
        *,
        scores: Sequence[float] | None = None,
        keep_probabilities: bool = False,
    ) -> MaskResult: ...
    @overload
    def __call__(
        self,
        images: Iterable[ImageInput],
        tags: Sequence[str | Sequence[str]],
        *,
        scores: Sequence[Sequence[float] | None] | None = None,
        keep_probabilities: bool = False,
    ) -> list[MaskResult]: ...
    def __call__(
        self,
        images: ImageInput | Iterable[ImageInput],
        tags: Any,
        *,
        scores: Any = None,
        keep_probabilities: bool = False,
    ) -> MaskResult | list[MaskResult]:
        """Class maps and mask of one image, or of several, one after the other.

        Args:
            images: a path, PIL image or (H, W, 3) uint8 RGB array; or a list of them.
            tags: names of classes of the vocabulary; a single name is one tag, none gives a mask of background. For a
                list of images a list with such an entry for each image.
            scores: of the tags, (K,), for `config.score_power`; None: all are certain. For a list one entry per image.
            keep_probabilities: return the probability map of each label too.

        Returns:
            One result for one image; for a list, a list with one result per image, in the order given.

        Raises:
            ImageError: a file that cannot be read as an image.
            VocabularyError: a tag that is not a class.
            UsageError: not one score per tag, or not one entry of tags or scores per image.
        """
        if is_one_image(images):
            return self._mask(images, tags, scores, keep_probabilities)
        images = as_images(images)
        if isinstance(tags, str) or len(tags) != len(images):
            given = repr(tags) if isinstance(tags, str) else f"{len(tags)} entries"
            raise UsageError(
                f"tags: {given} for a list of {len(images)} images; give one entry per image, each a name or a list"
            )
        if scores is not None and len(scores) != len(images):
            raise UsageError(f"scores: {len(scores)} entries for a list of {len(images)} images; give one per image")
        return [
            self._mask(image, names, certain, keep_probabilities)
            for image, names, certain in zip(images, tags, scores or [None] * len(images), strict=True)
        ]

    def _mask(
        self, image: ImageInput, tags: str | Sequence[str], scores: Sequence[float] | None, keep_probabilities: bool
    ) -> MaskResult:
        indices = [self.vocabulary.index(name) for name in dict.fromkeys(as_names(tags, "tags"))]
        if scores is not None and len(scores) != len(indices):
            raise UsageError(f"{len(scores)} scores for {len(indices)} different tags")
        rgb = decode_image(image, apply_exif=self.config.image.apply_exif)
        images = self.source.prepare(rgb)[None]
        found = maps_over_views(self.source, self.source.trunk(images), images, [indices], self.source.trunk)[0]
        found = weigh_by_scores(found, scores, self.config.score_power)
        label_map = self.mask_from_maps(rgb, found.maps, indices, keep_probabilities=keep_probabilities)
        return MaskResult(
            [self.vocabulary.names[index] for index in indices],
            indices,
            found.raw,
            found.refined,
            found.maps,
            found.probabilities,
            label_map.mask,
            label_map.labels,
            label_map.confidence,
            label_map.probabilities,
        )

    def mask_from_maps(
        self, rgb: np.ndarray, maps: np.ndarray, indices: Sequence[int], *, keep_probabilities: bool = False
    ) -> LabelMap:
        """See `wsss.masks.label_map.mask_from_maps`, which needs no model and is what CRF worker processes call."""
        return mask_from_maps(
            rgb,
            maps,
            indices,
            self.config,
            has_background=self.vocabulary.has_background,
            keep_probabilities=keep_probabilities,
            device=self.source.clip.device,
        )

"""One image at a time, in memory: tags, class maps and mask from one pass of the model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import overload

import torch

from tagclip.arguments import ImageInput, as_images, is_one_image
from tagclip.clip import FrozenCLIP
from tagclip.config import TagCLIPConfig
from tagclip.errors import ImageError
from tagclip.images import decode_image
from tagclip.tagger import TagCLIP
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.maps.gradcam_source import GradCamSource
from wsss.maps.source import ClassMapSource
from wsss.masks.label_map import mask_from_maps
from wsss.masks.labeled_image import LabeledImage
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.shared_pass import SharedPass


class ImageLabeler:
    """Tags an image and makes its mask, with one pass of the model for both stages.

    The results are those of a run: `label_folder` with `batch_size=1` writes the same bytes.

    Args:
        clip: the frozen model.
        vocabulary: target classes and background words.
        preset: "default", or "reference" for the published implementation's behaviour in every detail.
        tagging, masks: settings of the stages in place of the preset's.
        source: where class maps come from; None: class activation maps (CLIP-ES, arXiv 2212.09506).
        cache_dir: where text classifiers are kept between runs; None keeps nothing.

    Raises:
        UsageError: the two stages' settings see images differently, or do not fit the model or the vocabulary.

    Example:
        >>> labeler = ImageLabeler(load_clip("demo"), Vocabulary.named("voc"))  # doctest: +SKIP
        >>> found = labeler("street.jpg")  # doctest: +SKIP
        >>> found.tags, found.scores["bus"], found.mask.shape  # doctest: +SKIP
        (['bus', 'person'], 0.91, (375, 500))
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        vocabulary: Vocabulary,
        preset: str = "default",
        *,
        tagging: TagCLIPConfig | None = None,
        masks: MaskConfig | None = None,
        source: ClassMapSource | None = None,
        cache_dir: Path | str | None = None,
    ):
        source = source or GradCamSource(clip, vocabulary, preset, config=masks, cache_dir=cache_dir)
        tagger = TagCLIP(clip, vocabulary, preset, config=tagging, cache_dir=cache_dir)
        self.clip, self.vocabulary, self.config = clip, vocabulary, source.config
        self._pass = SharedPass(source, tagger)

    @classmethod
    def from_recipe(
        cls, clip: FrozenCLIP, recipe: Recipe, *, cache_dir: Path | str | None = None
    ) -> ImageLabeler:
        """With the settings of a config: `ImageLabeler.from_recipe(clip, dataset_settings("masks/voc2012"))`."""
        source = recipe.maps(clip, cache_dir)
        return cls(clip, recipe.vocabulary, tagging=recipe.tagging, source=source, cache_dir=cache_dir)

    @overload
    def __call__(self, images: ImageInput) -> LabeledImage: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Iterable[ImageInput]) -> list[LabeledImage]: ...
    def __call__(self, images: ImageInput | Iterable[ImageInput]) -> LabeledImage | list[LabeledImage]:
        """Tags and mask of one image, or of several, one after the other.

        Args:
            images: a path, PIL image or (H, W, 3) uint8 RGB array; or a list of them.

        Returns:
            One result for one image; for a list, a list with one result per image, in the order given.

        Raises:
            ImageError: a file that cannot be read as an image, or one whose scores are not finite.
            UsageError: something else than images.
        """
        if is_one_image(images):
            return self._label(images)
        return [self._label(image) for image in as_images(images)]

    @torch.no_grad()
    def _label(self, image: ImageInput) -> LabeledImage:
        rgb = decode_image(image, apply_exif=self.config.image.apply_exif)
        inputs = self._pass.source.prepare(rgb)[None].to(self.clip.device)
        (found,) = self._pass(inputs)
        if found is None or found.scores is None:
            name = image if isinstance(image, str | Path) else "image"
            raise ImageError(f"{name}: its scores are not finite; load the model with dtype='float32'")
        label_map = mask_from_maps(
            rgb, found.maps.maps, found.indices, self.config,
            has_background=self.vocabulary.has_background, device=self.clip.device,
        )  # fmt: skip
        names = self.vocabulary.names
        best_first = (-found.scores).argsort(kind="stable").tolist()
        return LabeledImage(
            image=rgb,
            tags=[names[index] for index in found.indices],
            scores={names[index]: float(found.scores[index]) for index in best_first},
            maps={names[index]: one for index, one in zip(found.indices, found.maps.maps, strict=True)},
            mask=label_map.mask,
            confidence=label_map.confidence,
            vocabulary=self.vocabulary,
            ignore_label=self.config.ignore_label,
        )

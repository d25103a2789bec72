"""From the class maps of an image to its mask: what all sources of class maps share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tagclip.clip import AttentionRequest, FrozenCLIP, Trunk
from tagclip.errors import UsageError
from tagclip.images import decode_image, prepare_image
from tagclip.vocabulary import Vocabulary
from wsss.class_maps import CamResult, mean_of_views, weigh_by_scores
from wsss.config import MaskConfig
from wsss.masks import LabelMap, check_label_count, mask_from_cams
from wsss.views import cams_over_views


@dataclass
class MaskResult:
    """CAMs and mask of one image.

    Attributes:
        tags: names of the classes of the maps, and indices: their positions in the vocabulary.
        raw_cams: after softmax Grad-CAM, (K, h, w) float32 in [0, 1] on the patch grid.
        refined: after the affinity, (K, h, w) float32, before the last scaling.
        cams: refined maps scaled to [0, 1], (K, h, w) float32.
        probabilities: of the K tags and the background words, (K + B,) float32.
        mask: (H, W) uint8: 0 background and class c -> c + 1 (without background: c -> c), 255 where confidence is low.
        labels: (H, W) uint8, the same without 255.
        confidence: (H, W) float32, highest label probability of each pixel.
        label_probabilities: (1 + K, H, W) float32 if asked for, else None.
    """

    tags: list[str]
    indices: list[int]
    raw_cams: np.ndarray
    refined: np.ndarray
    cams: np.ndarray
    probabilities: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    label_probabilities: np.ndarray | None = None


class MaskMaker(ABC):
    """Makes pseudo masks of images whose tags are known, from class maps that a subclass reads off CLIP's trunk.

    Args:
        clip: the frozen model.
        vocabulary: target classes and background words.
        config: settings.

    Raises:
        UsageError: more classes than an 8-bit mask can hold.
    """

    def __init__(self, clip: FrozenCLIP, vocabulary: Vocabulary, config: MaskConfig):
        check_label_count(len(vocabulary), vocabulary.has_background)
        self.clip, self.vocabulary, self.config = clip, vocabulary, config

    @property
    @abstractmethod
    def request(self) -> AttentionRequest:
        """What a trunk must collect for `cams_from_trunk`."""

    @abstractmethod
    def cams_from_trunk(self, trunk: Trunk, tag_indices: Sequence[Sequence[int]]) -> list[CamResult]:
        """Maps of each image of the batch for its tags, from a trunk that was made with (at least) `request`.

        Each image is computed by itself, so its maps do not depend on the others of the batch.

        Args:
            trunk: of B images.
            tag_indices: class indices of each image, distinct; may be empty.

        Raises:
            UsageError: not one list of tags an image, or a trunk without what `request` asks for.
        """

    def check_count(self, trunk: Trunk, tag_indices: Sequence[Sequence[int]]) -> None:
        """Raises UsageError if there is not one list of tags an image."""
        if len(tag_indices) != len(trunk.tokens):
            raise UsageError(f"{len(tag_indices)} lists of tags for a trunk of {len(trunk.tokens)} images")

    def merge_views(self, views: Sequence[CamResult]) -> CamResult:
        """The mean of maps of one image seen in several ways; all on one patch grid."""
        return mean_of_views(views)

    def __call__(
        self,
        image: Any,
        tags: Sequence[str],
        *,
        scores: Sequence[float] | None = None,
        keep_probabilities: bool = False,
    ) -> MaskResult:
        """CAMs and mask of one image.

        Args:
            image: path, PIL image or (H, W, 3) uint8 RGB array.
            tags: names of classes of the vocabulary, distinct; none gives a mask of background.
            scores: of the tags, (K,), for `config.score_power`; None: all are certain.
            keep_probabilities: return the probability map of each label too.

        Raises:
            ImageError: a file that cannot be read as an image.
            VocabularyError: a tag that is not a class.
            UsageError: not one score a tag.
        """
        indices = [self.vocabulary.index(name) for name in dict.fromkeys(tags)]
        if scores is not None and len(scores) != len(indices):
            raise UsageError(f"{len(scores)} scores for {len(indices)} different tags")
        rgb = decode_image(image, apply_exif=self.config.image.apply_exif)
        images = self.prepare(rgb)[None]
        cams = cams_over_views(self, self.trunk(images), images, [indices], self.trunk)[0]
        cams = weigh_by_scores(cams, scores, self.config.score_power)
        label_map = self.mask_from_cams(rgb, cams.cams, indices, keep_probabilities=keep_probabilities)
        return MaskResult(
            [self.vocabulary.names[index] for index in indices],
            indices,
            cams.raw_cams,
            cams.refined,
            cams.cams,
            cams.probabilities,
            label_map.mask,
            label_map.labels,
            label_map.confidence,
            label_map.probabilities,
        )

    def prepare(self, rgb: np.ndarray) -> Tensor:
        """A decoded image, (H, W, 3) uint8 RGB, as the model's input, (3, H', W') float32."""
        return prepare_image(
            rgb, self.clip.patch_size, self.clip.mean, self.clip.std, max_long_side=self.config.image.max_long_side
        )

    def trunk(self, images: Tensor) -> Trunk:
        """Blocks 1..L-1 of a batch (B, 3, H, W) of prepared images, with what `cams_from_trunk` needs."""
        return self.clip.trunk(images, self.request, position_rounding=self.config.image.position_rounding)

    def mask_from_cams(
        self, rgb: np.ndarray, cams: np.ndarray, indices: Sequence[int], *, keep_probabilities: bool = False
    ) -> LabelMap:
        """See `wsss.masks.mask_from_cams`, which needs no model and is what CRF worker processes call."""
        return mask_from_cams(
            rgb,
            cams,
            indices,
            self.config,
            has_background=self.vocabulary.has_background,
            keep_probabilities=keep_probabilities,
            device=self.clip.device,
        )

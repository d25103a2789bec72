"""What makes class maps: an interface, and what all sources share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from tagclip.clip import AttentionRequest, FrozenCLIP, Trunk
from tagclip.errors import UsageError
from tagclip.images import prepare_image
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.maps.class_maps import ClassMaps, mean_of_views


class ClassMapSource(ABC):
    """Reads class maps of images whose tags are known off CLIP's trunk; a subclass says how.

    Args:
        clip: the frozen model.
        vocabulary: target classes and background words.
        config: settings.

    Raises:
        UsageError: more classes than a mask can hold.
    """

    def __init__(self, clip: FrozenCLIP, vocabulary: Vocabulary, config: MaskConfig):
        self.clip, self.vocabulary, self.config = clip, vocabulary, config.for_labels(vocabulary.label_count)

    @property
    @abstractmethod
    def request(self) -> AttentionRequest:
        """What a trunk must collect for `maps_from_trunk`."""

    @abstractmethod
    def maps_from_trunk(self, trunk: Trunk, tag_indices: Sequence[Sequence[int]]) -> list[ClassMaps]:
        """Maps of each image of the batch for its tags, from a trunk that was made with (at least) `request`.

        Each image is computed by itself, so its maps do not depend on the others of the batch.

        Args:
            trunk: of B images.
            tag_indices: class indices of each image, distinct; may be empty.

        Raises:
            UsageError: not one list of tags per image, or a trunk without what `request` asks for.
        """

    def check_count(self, trunk: Trunk, tag_indices: Sequence[Sequence[int]]) -> None:
        """Raises UsageError if there is not one list of tags per image."""
        if len(tag_indices) != len(trunk.tokens):
            raise UsageError(f"{len(tag_indices)} lists of tags for a trunk of {len(trunk.tokens)} images")

    def merge_views(self, views: Sequence[ClassMaps]) -> ClassMaps:
        """The mean of maps of one image seen in several ways; all on one patch grid."""
        return mean_of_views(views)

    def prepare(self, rgb: np.ndarray) -> Tensor:
        """A decoded image, (H, W, 3) uint8 RGB, as the model's input, (3, H', W') float32."""
        return prepare_image(
            rgb, self.clip.patch_size, self.clip.mean, self.clip.std, max_long_side=self.config.image.max_long_side
        )

    def trunk(self, images: Tensor) -> Trunk:
        """Blocks 1..L-1 of a batch (B, 3, H, W) of prepared images, with what `maps_from_trunk` needs."""
        return self.clip.trunk(images, self.request, position_rounding=self.config.image.position_rounding)

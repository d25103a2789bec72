"""A trained tagger in the place of TagCLIP: images of a batch -> scores -> tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tagclip.clip import AttentionRequest, Grid, Trunk
from tagclip.config import TagCLIPConfig
from tagclip.errors import UsageError
from tagclip.precision import exact_float32
from tagclip.tagger import ImageModel, TagResult, tag_results
from tagclip.vocabulary import Vocabulary
from wsss.distillation.student import Student


class StudentTagger:
    """Tags images with a trained tagger; a run takes it as it takes `tagclip.tagger.TagCLIP`.

    Args:
        student: frozen.
        vocabulary: its classes, in its order.
        config: settings, of which `rule`, `image` and the batches count here.
        prepared_by: the model that images are prepared for, where a run shows them to a CLIP, too; None: the tagger.

    Attributes:
        request: what it needs of a trunk: nothing.

    Raises:
        UsageError: other classes than the tagger's.
    """

    request = AttentionRequest()

    def __init__(
        self,
        student: Student,
        vocabulary: Vocabulary,
        config: TagCLIPConfig | None = None,
        *,
        prepared_by: ImageModel | None = None,
    ):
        require_classes(student.card.classes.names, vocabulary.names, student.name)
        self.student, self.vocabulary, self.config = student, vocabulary, config or TagCLIPConfig()
        self.model: ImageModel = prepared_by or student
        self._rule = self.config.rule.or_thresholds(vocabulary.thresholds).for_classes(vocabulary.names)
        self._mean, self._std = (
            torch.tensor(values, device=student.device).view(3, 1, 1) for values in (self.model.mean, self.model.std)
        )

    @torch.no_grad()
    @exact_float32()
    def score(self, images: Tensor) -> Tensor:
        """Scores of prepared images, (B, 3, H, W) -> (B, C) fp32 in [0, 1]."""
        rgb = images.to(self.student.device).float() * self._std + self._mean
        return self.student(rgb.clamp(0, 1)).sigmoid()

    def score_trunk(self, trunk: Trunk, images: Tensor) -> Tensor:
        """`score`; the trunk, which a run has for its class maps, is not looked at."""
        return self.score(images)

    def results(self, scores: Tensor | np.ndarray, grid: Grid) -> list[TagResult]:
        """Apply the tag rule to the scores (B, C) of a batch."""
        return tag_results(scores, self._rule, self.vocabulary.names, grid)


def require_classes(own: Sequence[str], wanted: Sequence[str], name: str) -> None:
    """Makes sure that a tagger has the classes that are asked for.

    Raises:
        UsageError: other classes, or another order.
    """
    if tuple(own) == tuple(wanted):
        return
    other = [*(one for one in wanted if one not in own), *(one for one in own if one not in wanted)]
    differs = f"{other[0]!r} is only in one of the two" if other else "the order differs"
    raise UsageError(
        f"--classes: {name} was trained on {len(own)} classes ({own[0]!r}, ...) and {len(wanted)} are asked for: "
        f"{differs}; leave --classes out to take the tagger's own"
    )

"""Loss weights of images from the scores of their tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tagclip.errors import UsageError
from wsss.files.sources import Sample

WEIGHT_RULES = ("none", "mean", "min", "product")


@dataclass(frozen=True)
class ImageWeights:
    """Loss weight of an image from the scores of its tags: doubtful tags count less.

    Attributes:
        rule: "mean", "min" or "product" of the scores of the image's tags, "none" for equal weights.
        power: exponent; 0 makes every weight 1.
        floor: smallest weight before the weights are scaled to a mean of 1.
    """

    rule: str = "mean"
    power: float = 1.0
    floor: float = 0.1

    def __post_init__(self) -> None:
        if self.rule not in WEIGHT_RULES:
            raise UsageError(f"image_weight rule {self.rule!r} is not one of {', '.join(WEIGHT_RULES)}")
        if self.power < 0 or not 0 <= self.floor <= 1:
            raise UsageError(f"image_weight power {self.power} must be >= 0 and floor {self.floor} in [0, 1]")

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """One weight per image; their mean is 1.

        Raises:
            UsageError: an image has tags without scores (a plain tag list, or ground truth).
        """
        if self.rule == "none":
            return [1.0] * len(samples)
        raw = [self._one(sample) for sample in samples]
        mean = sum(raw) / len(raw) if raw else 1.0
        return [value / mean if mean > 0 else 1.0 for value in raw]

    def _one(self, sample: Sample) -> float:
        if sample.tags and not sample.scores:
            raise UsageError(f"image_weight needs tag scores, but {sample.id} has tags without scores")
        if not sample.scores:
            return 1.0
        product = 1.0
        for score in sample.scores:
            product *= score
        value = {"mean": sum(sample.scores) / len(sample.scores), "min": min(sample.scores), "product": product}
        return max(value[self.rule], self.floor) ** self.power

"""Class weights of the loss from how many pixels each class has in the training masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.config import Config

from tagclip.errors import UsageError


@dataclass(frozen=True)
class ClassBalance:
    """Settings of class weights (a top-level `class_balance` dict in a config).

    Most pixels are background, and a model that learns from doubtful labels falls back on it. A class with the share
    f of the labelled pixels weighs f ** -power, scaled so that the mean weight of a pixel is 1.

    Attributes:
        power: 0 gives all classes the weight 1, 1 gives every class the same say.
    """

    power: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.power, int | float) and 0 <= self.power <= 1):
            raise UsageError(f"class_balance power {self.power!r} is not in [0, 1]; 0 turns it off")

    @classmethod
    def of(cls, cfg: Config) -> ClassBalance:
        """The config's settings.

        Raises:
            UsageError: a field that does not exist or a power out of range.
        """
        try:
            return cls(**(cfg.get("class_balance") or {}))
        except TypeError as error:
            raise UsageError(f"class_balance in the config: {error}") from None

    def weights(self, pixels: Sequence[int] | np.ndarray) -> list[float]:
        """Weight of each class. Classes without a pixel weigh 1.

        Args:
            pixels: of each class in the training masks, (C,), ignored pixels apart.
        """
        counts = np.asarray(pixels, np.float64)
        shares = counts / max(counts.sum(), 1)
        seen = shares > 0
        weights = np.ones(len(counts))
        weights[seen] = shares[seen] ** -self.power
        weights[seen] /= (weights[seen] * shares[seen]).sum() if seen.any() else 1
        return [round(float(weight), 4) for weight in weights]

    def apply(self, cfg: Config, pixels: np.ndarray) -> None:
        """Writes the weights into every loss of the model's heads, unless the power is 0.

        Args:
            cfg: of a training; changed in place.
            pixels: by label, (labels,), as `PreflightReport` counts them.

        Raises:
            UsageError: masks that were not counted, or a loss with weights of its own.
        """
        if not self.power:
            return
        if not pixels.sum():
            raise UsageError(
                "class_balance needs the masks' pixels counted: leave out --headers-only, or set its power to 0"
            )
        for head, loss in _losses(cfg):
            if loss.get("class_weight") is not None:
                raise UsageError("class_balance and a loss with its own class_weight: keep one of the two")
            loss.class_weight = self.weights(pixels[: head.num_classes])
            # With weights mmseg's cross entropy always averages over labelled pixels, and fails if told to.
            loss.avg_non_ignore = False


def _losses(cfg: Config) -> Iterator[tuple[Any, Any]]:
    for head in (cfg.model.decode_head, cfg.model.get("auxiliary_head")):
        for one in head if isinstance(head, list) else [head]:
            if one:
                losses = one.loss_decode
                yield from ((one, loss) for loss in (losses if isinstance(losses, list) else [losses]))

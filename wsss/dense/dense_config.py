"""Settings of dense inference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tagclip.clip.templates import TAGGING_TEMPLATES
from tagclip.errors import UsageError
from tagclip.settings import overlay
from wsss.config import PamrConfig
from wsss.dense.text_propagation import PropagationConfig


@dataclass(frozen=True)
class DenseConfig:
    """Everything that turns an image into a dense label map. The constants are those usual in this family.

    Attributes:
        strategy: name of a strategy (`wsss.dense.strategy_names()`) or path of a strategy file.
        preset: of the strategy: "default", or "reference" with the quirks of its published code.
        options: constants of the strategy that differ from its own.
        vocabulary: names that an image may get: "all", its "tags" by TagCLIP, or its true "labels" (given by the
            caller). Background words always stay.
        mode: "whole" sees the image at once, "slide" in windows whose logits are averaged.
        crop, stride: side and step of the windows in pixels (SCLIP: 224, 112); crop a multiple of the patch size.
        short_side: resize the image so that its shorter side has this many pixels first; None: native resolution.
        max_long_side: cap on the longer side in pixels for "whole"; None for none. Attention is quadratic in it.
        apply_exif: turn the image upright first.
        logit_scale: factor of the cosines before the softmax (40 in this family, not the model's 100).
        templates: prompt templates, averaged per name.
        background_threshold: pixels whose best class is less probable become background; 0 turns it off.
        area_threshold: classes that win at most this share of an image's foreground pixels lose all of them to the next
            best class (SC-CLIP); 0 turns it off.
        propagation: smoothing of the cosines along the image's edges before anything is decided (PEARL), or None.
        pamr: refinement of the probabilities by the image's colours, or None.
        window_batch: windows in one forward pass.
        chunk_mib: memory that full-size logits may take at a time, in MiB.
        tagging: settings of the tagger for vocabulary="tags", written over its default preset.
    """

    strategy: str = "gclip"
    preset: str = "default"
    options: dict = field(default_factory=dict)
    vocabulary: Literal["all", "tags", "labels"] = "all"
    mode: Literal["whole", "slide"] = "whole"
    crop: int = 224
    stride: int = 112
    short_side: int | None = None
    max_long_side: int | None = None
    apply_exif: bool = True
    logit_scale: float = 40.0
    templates: tuple[str, ...] = TAGGING_TEMPLATES
    background_threshold: float = 0.0
    area_threshold: float = 0.0
    propagation: PropagationConfig | None = None
    pamr: PamrConfig | None = None
    window_batch: int = 8
    chunk_mib: int = 256
    tagging: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.background_threshold < 1:
            raise UsageError(f"background_threshold {self.background_threshold} is not in [0, 1)")
        if not 0 <= self.area_threshold < 1:
            raise UsageError(f"area_threshold {self.area_threshold} is not in [0, 1)")
        if not 1 <= self.stride <= self.crop:
            raise UsageError(f"stride {self.stride} must be between 1 and the crop's {self.crop} pixels")
        for name in ("window_batch", "chunk_mib"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} must be at least 1")

    def describe(self) -> str:
        """What figures depend on besides the strategy, in a line that stands beside them."""
        view = "whole images" if self.mode == "whole" else f"windows of {self.crop} px every {self.stride} px"
        size = "native size" if self.short_side is None else f"short side {self.short_side} px"
        capped = self.mode == "whole" and self.max_long_side is not None
        cap = f" (long side at most {self.max_long_side} px)" if capped else ""
        least = f"pixels below {self.background_threshold:g} become background"
        return (
            f"{view}, {size}{cap}, logit scale {self.logit_scale:g}, "
            f"{least if self.background_threshold else 'no pixel threshold'}, "
            f"{self._refinement()}"
        )

    def _refinement(self) -> str:
        steps = ["propagated along edges"] if self.propagation is not None else []
        steps += [f"classes up to {self.area_threshold:g} of the foreground left out"] if self.area_threshold else []
        steps += ["refined by PAMR"] if self.pamr is not None else []
        return ", ".join(steps) or "no refinement"

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, as configs store it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], base: DenseConfig | None = None) -> DenseConfig:
        """`base` (the class defaults if None) with `values` written over it.

        `pamr=True` or {} is PAMR's default, and `propagation=True` that of the propagation.

        Raises:
            UsageError: a field that does not exist or a value of the wrong type.
        """
        base, given = base if base is not None else cls(), _plain(values)
        parts: dict[str, Any] = {}
        for name, kind in (("pamr", PamrConfig), ("propagation", PropagationConfig)):
            value = given.pop(name, getattr(base, name))
            if value is True:
                value = {}
            if isinstance(value, dict):
                value = overlay(getattr(base, name) or kind(), value, f"dense.{name}")
            parts[name] = value or None
        return dataclasses.replace(overlay(base, given, "dense"), **parts)


def _plain(values: Any) -> Any:
    """mmengine's config dicts as plain dicts."""
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items()}
    return [_plain(value) for value in values] if isinstance(values, list) else values

"""Settings of stage two (CAMs, affinity, refinement, masks): every constant of the papers is a named field here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tagclip.config import PRESETS, ImageConfig
from tagclip.errors import UsageError
from tagclip.settings import overlay


@dataclass(frozen=True)
class CamConfig:
    """Softmax Grad-CAM (CLIP-ES, arXiv 2212.09506, section 3.1-3.2).

    Attributes:
        template: the one prompt template of the CAM text classifier.
        reference_names: use the published prompt names where those differ (`Vocabulary.cam_prompts_reference`).
        precision: of matrix products in the last block: "float32", or "model" for the model's own dtype, which is
            faster for a half-precision model and changes the maps a little.
        normalisations: how often a map is scaled to [0, 1]. Two, because a peak may be as small as `epsilon`:
            the second pass brings it back to 1.
        epsilon: keeps the scaling of a constant map finite.
    """

    template: str = "a clean origami {}."
    reference_names: bool = False
    precision: Literal["float32", "model"] = "float32"
    normalisations: int = 2
    epsilon: float = 1e-7


@dataclass(frozen=True)
class AffinityConfig:
    """Class-aware attention affinity (CLIP-ES section 3.4).

    Attributes:
        first_block, last_block: range of blocks whose mean attention is the affinity. Negative numbers count from
            the end as in Python lists (-1 is the last block), positive ones are 1-based. CLIP-ES: the last 8;
            TagCLIP's VOC setting leaves the last one out (5..11 of 12).
        box_threshold: threshold of the boxes relative to the map's peak: 0.4 for VOC, 0.7 for COCO and COCO-Stuff.
        clip_boxes: the published code clips the exclusive box ends to width - 1 and height - 1, so that the last
            row and column never lie inside a box; only the reference preset does.
        sinkhorn_rounds: (column, row) normalisations.
        propagations: how often the symmetric affinity is applied to a map.
    """

    first_block: int = -8
    last_block: int = -1
    box_threshold: float = 0.4
    clip_boxes: bool = False
    sinkhorn_rounds: int = 3
    propagations: int = 2

    def block_range(self, depth: int) -> tuple[int, int]:
        """1-based inclusive range for a model of `depth` blocks; a range longer than the model starts at block 1.

        Raises:
            UsageError: the range is empty or lies outside the model.
        """
        first, last = (depth + 1 + block if block < 0 else block for block in (self.first_block, self.last_block))
        if self.first_block < 0:
            first = max(first, 1)
        if not 1 <= first <= last <= depth:
            raise UsageError(
                f"affinity blocks {self.first_block}..{self.last_block} are not a range of a model of {depth} blocks"
            )
        return first, last


@dataclass(frozen=True)
class CrfConfig:
    """Fully connected CRF (Krähenbühl and Koltun, arXiv 1210.5644) with the constants of CLIP-ES.

    Attributes:
        iterations: mean-field steps.
        gaussian_sxy, gaussian_compat: smoothness kernel, standard deviation in pixels and weight.
        bilateral_sxy, bilateral_srgb, bilateral_compat: appearance kernel, in pixels and grey levels, and weight.
        probability_floor: smallest probability of the unary term, whose energy is -log(probability).
        wrap_dark_pixels: the published code subtracts `mean_bgr` and casts to uint8, so that values below the mean
            wrap around; only the reference preset does.
        mean_bgr: that mean.
    """

    iterations: int = 10
    gaussian_sxy: float = 1.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 67.0
    bilateral_srgb: float = 3.0
    bilateral_compat: float = 4.0
    probability_floor: float = 1e-5
    wrap_dark_pixels: bool = False
    mean_bgr: tuple[float, float, float] = (104.008, 116.669, 122.675)

    def __post_init__(self) -> None:
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb", "probability_floor"):
            if getattr(self, name) <= 0:
                raise UsageError(f"crf.{name} {getattr(self, name)} must be positive")
        for name in ("iterations", "gaussian_compat", "bilateral_compat"):
            if getattr(self, name) < 0:
                raise UsageError(f"crf.{name} {getattr(self, name)} must not be negative")


@dataclass(frozen=True)
class PamrConfig:
    """Pixel-adaptive mask refinement (Araslanov and Roth, arXiv 2005.08104, section 3.3).

    Attributes:
        dilations: of the 3 x 3 neighbourhoods, in pixels.
        iterations: refinement steps.
        temperature: factor of the local standard deviation that scales colour differences.
    """

    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    iterations: int = 10
    temperature: float = 0.1


@dataclass(frozen=True)
class ViewConfig:
    """Views of an image that its maps are averaged over. Neither paper does it; each view costs a pass of the model.

    Attributes:
        scales: factors of the model's input size; 1.0, the view that tags are read from, must be among them.
        flip: each scale mirrored as well.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if 1.0 not in self.scales or min(self.scales) <= 0:
            raise UsageError(f"views.scales {list(self.scales)} must be positive and have 1.0 among them")
        if len(set(self.scales)) != len(self.scales):
            raise UsageError(f"views.scales {list(self.scales)} names a scale twice")

    @property
    def others(self) -> list[tuple[float, bool]]:
        """(scale, flipped) of every view but the plain one."""
        views = [(scale, flipped) for scale in self.scales for flipped in ((False, True) if self.flip else (False,))]
        return [view for view in views if view != (1.0, False)]


@dataclass(frozen=True)
class MaskConfig:
    """Everything that turns an image and its tags into a pseudo mask.

    Attributes:
        image: how an image becomes the model's input; masks have the image's own size, whatever the model saw.
        views: scales and mirror images that the maps are averaged over.
        score_power: maps are multiplied by (score / best score of the image) ** score_power, so that a doubtful tag
            does not compete at full strength; 0, as in the papers, leaves every map its peak of 1. Tags without
            scores count as certain.
        refiner: "crf", "pamr" or "none".
        max_refine_side: photos with a longer side, in pixels, are refined at this size, and the labels then brought to
            the photo's own: the CRF takes 0.3 to 0.4 GB and three seconds per megapixel. None: always at full size.
        upsampling: how: "guided" follows the photo's edges (Fast Guided Filter, arXiv 1505.00996), "nearest" does not.
        alpha: exponent of the background score (1 - max_k cam_k) ** alpha.
        sure_alpha: a larger exponent: pixels that are background with `alpha`, but not with this one, become
            `ignore_label`, so that only sure background is trained on, as in IRN (Ahn et al., arXiv 1904.05044, which
            takes two thresholds). The refiner runs twice. None, as in CLIP-ES, trusts the background.
        confidence: pixels whose highest probability is lower become `ignore_label`; None keeps every pixel.
        storage_dtype: dtype of CAMs on disk. Masks are always made from CAMs rounded to it, so that masks from
            memory and from files are the same.
        round_upsampled: the published code stores the upsampled maps as float16; only the reference preset does.
    """

    image: ImageConfig = field(default_factory=ImageConfig)
    cam: CamConfig = field(default_factory=CamConfig)
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    pamr: PamrConfig = field(default_factory=PamrConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    score_power: float = 0.0
    refiner: Literal["crf", "pamr", "none"] = "crf"
    max_refine_side: int | None = 1024
    upsampling: Literal["guided", "nearest"] = "guided"
    alpha: float = 1.0
    sure_alpha: float | None = None
    confidence: float | None = 0.95
    ignore_label: int = 255
    storage_dtype: Literal["float16", "float32"] = "float16"
    round_upsampled: bool = False

    def __post_init__(self) -> None:
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise UsageError(f"mask confidence {self.confidence} is not in [0, 1]; use None to keep every pixel")
        if self.score_power < 0:
            raise UsageError(f"score_power {self.score_power} must not be negative")
        if self.alpha <= 0:
            raise UsageError(f"background exponent alpha {self.alpha} must be positive")
        if self.sure_alpha is not None and self.sure_alpha <= self.alpha:
            raise UsageError(f"sure_alpha {self.sure_alpha} must be above alpha {self.alpha}; use None to turn it off")
        if self.max_refine_side is not None and self.max_refine_side < 1:
            raise UsageError(f"max_refine_side {self.max_refine_side} must be positive; use None for the full size")

    @classmethod
    def preset(cls, name: str = "default", vocabulary: str = "custom") -> MaskConfig:
        """The settings of a preset ("reference" or "default") for a data set (its vocabulary's name).

        A vocabulary name that is not one of the built-in ones gets the "custom" settings: CLIP-ES's 8 blocks, 0.4.

        Raises:
            UsageError: unknown preset.
        """
        if name not in PRESETS:
            raise UsageError(f"unknown preset {name!r}: use one of {', '.join(PRESETS)}")
        affinity = AffinityConfig(
            last_block=-2 if vocabulary == "voc" else -1,
            box_threshold=0.7 if vocabulary in ("coco", "cocostuff") else 0.4,
        )
        config = cls(affinity=affinity)
        if name == "default":
            return config
        return replace(
            config,
            image=ImageConfig(apply_exif=False, max_long_side=None, position_rounding="float16"),
            affinity=replace(affinity, clip_boxes=True),
            cam=replace(config.cam, reference_names=True),
            crf=replace(config.crf, wrap_dark_pixels=True),
            storage_dtype="float32",
            round_upsampled=True,
            max_refine_side=None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, as configs and manifests store it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], base: MaskConfig | None = None) -> MaskConfig:
        """`base` (the class defaults if None) with `values`, nested dicts included, written over it.

        Raises:
            UsageError: a field that does not exist or a value of the wrong type.
        """
        return overlay(base if base is not None else cls(), values, "masks")

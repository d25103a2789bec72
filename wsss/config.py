"""Settings of stage two (CAMs, affinity, refinement, masks): every constant of the papers is a named field here.

Constants that differ between data sets stand in the config of each (configs/masks);
`wsss.pipeline.recipe.dataset_settings` reads them from Python. Behind a field's name its docstring gives the paper's
symbol in brackets; docs/constants.md is made from these docstrings.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tagclip.config import PRESETS, ImageConfig
from tagclip.errors import UsageError
from tagclip.settings import overlay
from wsss.files.mask_files import chosen_ignore_label

# Fields of `MaskConfig` that masks depend on and class maps do not.
AFTER_THE_MAPS = (
    "refiner", "max_refine_side", "upsampling", "alpha", "sure_alpha", "confidence", "ignore_label", "crf", "pamr",
    "par", "sam",
)  # fmt: skip


@dataclass(frozen=True)
class CamConfig:
    """Softmax Grad-CAM (CLIP-ES, arXiv 2212.09506, section 3.1-3.2).

    Attributes:
        template: The one prompt template of the text classifier of class maps.
        reference_names: Quirk of the published code: use its spelling of class names where that differs
            (`Vocabulary.cam_prompts_reference`).
        precision: Number format of the matrix products in the last block: "model" for the model's own, which changes
            nothing for a float32 model, and the maps of a half-precision one a little (a test bounds it), or "float32".
        normalisations: How often a map is scaled to [0, 1]. Two, because a peak may be as small as `epsilon`: the
            second pass brings it back to 1.
        epsilon: Added to a map's peak before dividing by it, so that scaling a constant map stays finite.
    """

    template: str = "a clean origami {}."
    reference_names: bool = False
    precision: Literal["model", "float32"] = "model"
    normalisations: int = 2
    epsilon: float = 1e-7


@dataclass(frozen=True)
class AffinityConfig:
    """Class-aware attention affinity (CLIP-ES section 3.4).

    Attributes:
        first_block, last_block: The blocks whose mean attention says which patches belong together. Positive numbers
            count from 1; negative ones count from the end as in Python lists, so that -8 to -1 are blocks 5 to 12 of
            12.
        box_threshold (lambda): A map spreads only inside boxes around what is above this share of its peak.
        clip_boxes: Quirk of the published code: the last row and column of patches never lie inside a box, because
            its exclusive ends are clipped to width - 1 and height - 1.
        sinkhorn_rounds: How often attention is divided by its column sums and then by its row sums, after which both
            are nearly 1, so that no patch gives or takes more than the others.
        propagations (t): How often the affinity is applied to a map; each time it spreads further.
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
        engine: "pydensecrf" is the published one; "torch" is our own on tensors, which needs no compiler, runs on any
            device and differs in the last digits. "auto" takes pydensecrf on a CPU that has it, otherwise tensors; only
            the reference preset insists on pydensecrf.
        iterations: Number of mean-field steps.
        gaussian_sxy (theta_gamma): Reach of the smoothness kernel, its standard deviation in pixels.
        gaussian_compat (w2): Weight of the smoothness kernel, which removes small islands.
        bilateral_sxy (theta_alpha): Reach of the appearance kernel, its standard deviation in pixels.
        bilateral_srgb (theta_beta): Difference in grey levels up to which the appearance kernel takes two colours for
            alike, as a standard deviation.
        bilateral_compat (w1): Weight of the appearance kernel, which pulls edges of the mask to edges of the image.
        probability_floor: Smallest probability that enters the CRF, whose energy is -log(probability).
        wrap_dark_pixels: Quirk of the published code: it subtracts `mean_bgr` and casts to uint8, so that values
            below the mean wrap around and turn bright.
        mean_bgr: That mean: blue, green, red.
    """

    engine: Literal["auto", "pydensecrf", "torch"] = "auto"
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
        dilations: Spacings of the 3 x 3 neighbourhoods in pixels; the largest is how far a pixel looks in one step.
        iterations (T): Number of refinement steps.
        temperature: Factor of the local standard deviation of colours, by which colour differences are divided;
            smaller follows edges more strictly.
        centre_per_dilation: Quirk of the published code: the pixel itself counts once per dilation in that standard
            deviation, not once.
    """

    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    iterations: int = 10
    temperature: float = 0.1
    centre_per_dilation: bool = False


@dataclass(frozen=True)
class ParConfig:
    """Pixel-adaptive refinement by colour and place (Ru et al., arXiv 2203.02664, section 3.3) with ExCEL's constants.

    Attributes:
        dilations: Spacings of the 3 x 3 neighbourhoods in pixels.
        iterations: Number of refinement steps.
        colour_scale (w1): Factor of the local standard deviations by which differences of colour and place are divided.
        place_weight (w2): Weight of nearness beside that of colour.
    """

    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    iterations: int = 20
    colour_scale: float = 0.3
    place_weight: float = 0.01


@dataclass(frozen=True)
class SamConfig:
    """Masks of a promptable segmenter vote with the label map (SAM, arXiv 2304.02643; SAM 2, arXiv 2408.00714).

    How prompts are made and masks vote is ours; no paper's constants.

    Attributes:
        weights: Folder of the segmenter, as transformers saves SamModel or Sam2Model with its processor: config.json,
            preprocessor_config.json or processor_config.json, model.safetensors.
        box_threshold: A box is drawn around each connected region of a class map above this share of its peak.
        smallest_region: A region smaller than this share of the class's largest is not asked about.
        points: Points per region, where its class leads the others most.
        quality_power: Of the masks proposed for a prompt, the one with the largest overlap with a class's share of the
            label map, times the segmenter's own quality to this power, is taken.
        weight: Share of the masks in the result; the label map before them has the rest.
    """

    weights: str | None = None
    box_threshold: float = 0.5
    smallest_region: float = 0.1
    points: int = 1
    quality_power: float = 2.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("box_threshold", "smallest_region", "weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"sam.{name} {getattr(self, name)} is not in [0, 1]")
        if self.points < 1:
            raise UsageError(f"sam.points {self.points} must be at least 1")


@dataclass(frozen=True)
class ExcelConfig:
    """Class maps by patch-text surgery (ExCEL, arXiv 2503.20826, the part that is not trained).

    Attributes:
        template: The one prompt template of the text classifier.
        blocks: Number of last blocks whose query-query, key-key and value-value attention calibrates the patches.
        heads: How those blocks' maps are mixed: "each" keeps heads apart, "mean" gives all heads the mean of their
            maps, "sum", a quirk of the published code, their sum, which outweighs the tokens it is added to.
        normalise_over_tokens: Quirk of the published code: features have unit norm over the tokens of each channel
            instead of over the channels of each token.
        affinity: Class-aware affinity, by other blocks and tighter boxes than CLIP-ES.
        affinity_sums_heads: Quirk of the published code: attention of all but the first of the affinity's blocks is
            summed over heads, so that the first hardly counts.
        attributes: YAML file with sentences about each class, to enrich the class texts; None leaves them alone.
        attribute_count (B): Number of k-means centres of the sentences' features: 112 for VOC, 224 for COCO.
        dropped_share: Share of the centres, those that are the least like a class, that it gets nothing of.
        drop_rounds_down: Quirk of the published code: int((1 - 0.9) B), which is 2 and not 3 of 30.
        temperature: Of the softmax over a class's centres. 1, as published, is nearly flat: cosines differ by less.
        seed: Of k-means.
        published_input: Side of the square input, normalised by ImageNet's constants, of the published code (320); None
            shows the model the image as all other methods do. For `MaskGenerator` in Python only: in a run the tagger
            and other sources share the input.
    """

    template: str = "a clean origami {}."
    blocks: int = 5
    heads: Literal["each", "mean", "sum"] = "mean"
    normalise_over_tokens: bool = False
    affinity: AffinityConfig = field(default_factory=lambda: AffinityConfig(first_block=-6, box_threshold=0.79))
    affinity_sums_heads: bool = False
    attributes: str | None = None
    attribute_count: int = 112
    dropped_share: float = 0.1
    drop_rounds_down: bool = False
    temperature: float = 1.0
    seed: int = 0
    published_input: int | None = None

    def __post_init__(self) -> None:
        if self.attribute_count < 1:
            raise UsageError(f"excel.attribute_count {self.attribute_count} must be at least 1")
        if not 0 <= self.dropped_share < 1:
            raise UsageError(f"excel.dropped_share {self.dropped_share} is not in [0, 1)")
        if self.temperature <= 0:
            raise UsageError(f"excel.temperature {self.temperature} must be positive")
        if self.published_input is not None and self.published_input < 1:
            raise UsageError(f"excel.published_input {self.published_input} must be positive, or None")


@dataclass(frozen=True)
class ViewConfig:
    """Views of an image that its maps are averaged over. Neither paper does it; each view costs a pass of the model.

    Attributes:
        scales: Factors of the model's input size; 1.0, the view that tags are read from, must be among them.
        flip: Average over the mirror image of each scale, too.
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
        image: How an image becomes the model's input; masks have the image's own size, whatever the model saw.
        cam: Softmax Grad-CAM.
        affinity: Class-aware attention affinity.
        crf: Fully connected CRF.
        pamr: Pixel-adaptive mask refinement.
        par: Pixel-adaptive refinement by colour and place.
        sam: Masks of a promptable segmenter.
        excel: Class maps by patch-text surgery, for the method "excel".
        views: Scales and mirror images that the maps are averaged over.
        score_power: How much a doubtful tag is held back: each map is multiplied by (its score / the image's best
            score) to this power. 0, as in the papers, lets all tags compete at full strength; tags without scores
            always do.
        refiner: What sharpens the masks: "crf", "pamr", "par", "sam" or "none".
        max_refine_side: A photo with a longer side, in pixels, is refined at this size, and the labels are then
            brought to the photo's own: the CRF takes 0.3 to 0.4 GB and three seconds per megapixel. None refines at
            full size.
        upsampling: How labels are brought to the photo's size: "guided" follows the photo's edges (Fast Guided Filter,
            arXiv 1505.00996), "nearest" does not.
        alpha (alpha): Exponent of the background's score, (1 - the strongest map) ** alpha; larger makes the
            background smaller.
        sure_alpha: A second, larger exponent, to keep only the background that is sure: pixels that are background
            with `alpha` but not with this one become `ignore_label`, as with the two thresholds of IRN (Ahn et al.,
            arXiv 1904.05044). The refiner then runs twice. None, as in CLIP-ES, trusts all background.
        confidence (mu): Pixels whose highest probability is lower become `ignore_label`; None keeps every pixel.
        ignore_label: Label of pixels that training and evaluation leave out. 255 stands for 65535 where there are too
            many classes for 8-bit masks.
        storage_dtype: Number format of class maps on disk. Masks are always made from maps rounded to it, so that
            masks from memory and from files are the same.
        round_upsampled: Quirk of the published code: the upsampled maps are rounded to float16.
    """

    image: ImageConfig = field(default_factory=ImageConfig)
    cam: CamConfig = field(default_factory=CamConfig)
    affinity: AffinityConfig = field(default_factory=AffinityConfig)
    crf: CrfConfig = field(default_factory=CrfConfig)
    pamr: PamrConfig = field(default_factory=PamrConfig)
    par: ParConfig = field(default_factory=ParConfig)
    sam: SamConfig = field(default_factory=SamConfig)
    excel: ExcelConfig = field(default_factory=ExcelConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    score_power: float = 0.0
    refiner: Literal["crf", "pamr", "par", "sam", "none"] = "crf"
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
    def preset(cls, name: str = "default") -> MaskConfig:
        """CLIP-ES's constants with the published code's quirks ("reference") or without ("default").

        VOC, COCO and COCO-Stuff have other affinity blocks or another box threshold, which neither preset knows: the
        files of `configs/masks` hold them, and `wsss.pipeline.recipe.dataset_settings("masks/voc2012")` reads them.

        Raises:
            UsageError: unknown preset.
        """
        if name not in PRESETS:
            raise UsageError(f"unknown preset {name!r}: use one of {', '.join(PRESETS)}")
        config = cls()
        if name == "default":
            return config
        return replace(
            config,
            image=ImageConfig(apply_exif=False, max_long_side=None, position_rounding="float16"),
            affinity=replace(config.affinity, clip_boxes=True),
            cam=replace(config.cam, reference_names=True, precision="float32"),
            crf=replace(config.crf, engine="pydensecrf", wrap_dark_pixels=True),
            pamr=replace(config.pamr, centre_per_dilation=True),
            excel=replace(
                config.excel,
                heads="sum",
                normalise_over_tokens=True,
                affinity=replace(config.excel.affinity, clip_boxes=True),
                affinity_sums_heads=True,
                drop_rounds_down=True,
            ),
            storage_dtype="float32",
            round_upsampled=True,
            max_refine_side=None,
        )

    def for_labels(self, labels: int) -> MaskConfig:
        """The settings for masks of so many labels: their `ignore_label` is none of them.

        Raises:
            UsageError: more labels than a mask can hold, or an ignore label that is a class.
        """
        ignored = chosen_ignore_label(self.ignore_label, labels)
        return self if ignored == self.ignore_label else replace(self, ignore_label=ignored)

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

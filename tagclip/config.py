"""Settings of stage one (TagCLIP, arXiv 2312.12828): every constant of the paper is a named field here."""

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tagclip.errors import UsageError
from tagclip.settings import overlay

PRESETS = ("reference", "default")


@dataclass(frozen=True)
class ImageConfig:
    """How an image becomes the model's input.

    Attributes:
        apply_exif: turn the image upright first (the published code does not).
        max_long_side: cap on the longer side in pixels, None for no cap: attention is quadratic in the patches.
        position_rounding: see `FrozenCLIP.trunk`; the published tagging code rounds interpolated positions to float16.
    """

    apply_exif: bool = True
    max_long_side: int | None = 1024
    position_rounding: Literal["none", "float16_off_native", "float16"] = "none"

    def __post_init__(self) -> None:
        if self.max_long_side is not None and self.max_long_side < 1:
            raise UsageError(f"max_long_side {self.max_long_side} must be positive; use None for no cap")


@dataclass(frozen=True)
class DMARConfig:
    """Dual-masking attention refinement (section "DMAR" of the paper).

    Attributes:
        enabled: False leaves the coarse scores as they are.
        vote_mask: keep only attention between patches that enough blocks agree on.
        vote_divisor: enough blocks are ceil(L / vote_divisor): 4 of 12.
        class_mask: keep only source patches inside the boxes of a class's first refinement.
        first_block, last_block: blocks whose mean attention is the affinity. Negative numbers count from the end as
            in Python lists (-1 is the last block), positive ones are 1-based. The paper: 9..11 of 12; COCO-Stuff 1..11.
        clip_boxes: the published code clips the exclusive ends of boxes to width - 1 and height - 1, so that the last
            row and column never lie inside a box; only the reference preset does.
    """

    enabled: bool = True
    vote_mask: bool = True
    vote_divisor: int = 3
    class_mask: bool = True
    first_block: int = -4
    last_block: int = -2
    clip_boxes: bool = False

    def __post_init__(self) -> None:
        if self.vote_divisor < 1:
            raise UsageError(f"vote_divisor {self.vote_divisor} must be at least 1")

    def votes_needed(self, depth: int) -> int:
        """ceil(L / vote_divisor) for a model of `depth` blocks."""
        return -(-depth // self.vote_divisor)

    def block_range(self, depth: int) -> tuple[int, int]:
        """1-based inclusive range of the affinity; one that begins before block 1 begins at block 1.

        Raises:
            UsageError: the range is empty or lies outside a model of `depth` blocks.
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
class CWRConfig:
    """Class-wise re-identification (section "CWR" of the paper).

    Attributes:
        enabled: False leaves the local scores as they are.
        threshold: t of the candidates, s_c > lo + t (hi - lo), lo and hi over all patches and classes; COCO-Stuff 0.1.
        mask_threshold: a patch is on the class where its score, scaled to [0, 1], is higher.
        attention_bias: added to [CLS] attention at patches off the class.
        local_weight: share of the local score in the final one.
        clip_boxes: the published code clips the exclusive ends of the tight box to width - 1 and height - 1.
        stop_at_degenerate: a box without area ends, in the published code, the step for all later classes of the
            image; otherwise only that class is skipped.
        chunk_size: crops in one forward pass; bounds memory.
    """

    enabled: bool = True
    threshold: float = 0.5
    mask_threshold: float = 0.5
    attention_bias: float = -1000.0
    local_weight: float = 0.5
    clip_boxes: bool = False
    stop_at_degenerate: bool = False
    chunk_size: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.local_weight <= 1:
            raise UsageError(f"local_weight {self.local_weight} is not in [0, 1]")
        if self.chunk_size < 1:
            raise UsageError(f"chunk_size {self.chunk_size} must be at least 1")


@dataclass(frozen=True)
class TagRuleConfig:
    """Which scores become tags; see `tagclip.thresholds.select`.

    Attributes:
        rule: "relative" (the paper): s_c > min(s) + t (max(s) - min(s)); "absolute": s_c > t; "top_k".
        threshold: t for all classes; COCO-Stuff 0.1.
        class_thresholds: one t a class, from a calibration; takes the place of `threshold`. Empty: none.
        top_k: number of tags of the rule "top_k".
        at_least_one: an image that no class passes gets its best class.
    """

    rule: Literal["relative", "absolute", "top_k"] = "relative"
    threshold: float = 0.5
    class_thresholds: tuple[float, ...] = ()
    top_k: int = 3
    at_least_one: bool = True

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise UsageError(f"top_k {self.top_k} must be at least 1")


def _tagging_templates() -> tuple[str, ...]:
    # Imported when needed: settings are also read in CRF worker processes, which can do without torch and open_clip.
    from tagclip.clip.prompts import TAGGING_TEMPLATES

    return TAGGING_TEMPLATES


@dataclass(frozen=True)
class TagCLIPConfig:
    """Everything that turns an image into scores and tags.

    Attributes:
        templates: prompt templates of the text classifier, averaged; all synonyms of a class join the average.
        scorer: "patches" scores patch by patch (the paper); "global" is CLIP's ordinary [CLS] answer, for comparison.
        local_attention: the last block's self-only attention, exact ("local") or by the published additive mask.
        batch_size: images of one grid shape in one forward pass.
        batch_patches: cap on batch_size x patches, so that a batch of large images stays small; None for none.
    """

    image: ImageConfig = field(default_factory=ImageConfig)
    dmar: DMARConfig = field(default_factory=DMARConfig)
    cwr: CWRConfig = field(default_factory=CWRConfig)
    rule: TagRuleConfig = field(default_factory=TagRuleConfig)
    templates: tuple[str, ...] = field(default_factory=_tagging_templates)
    scorer: Literal["patches", "global"] = "patches"
    local_attention: Literal["local", "masked_local"] = "local"
    batch_size: int = 8
    batch_patches: int | None = 16384

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size {self.batch_size} must be at least 1")

    @classmethod
    def preset(cls, name: str = "default", vocabulary: str = "custom") -> "TagCLIPConfig":
        """The settings of a preset ("reference" or "default") for a data set (its vocabulary's name).

        Names other than "cocostuff" share one set of constants, those of VOC and COCO in the paper.

        Raises:
            UsageError: unknown preset.
        """
        if name not in PRESETS:
            raise UsageError(f"unknown preset {name!r}: use one of {', '.join(PRESETS)}")
        config = cls()
        if vocabulary == "cocostuff":
            config = replace(
                config,
                dmar=replace(config.dmar, first_block=1),
                cwr=replace(config.cwr, threshold=0.1),
                rule=replace(config.rule, threshold=0.1),
            )
        if name == "default":
            return config
        return replace(
            config,
            image=ImageConfig(apply_exif=False, max_long_side=None, position_rounding="float16_off_native"),
            dmar=replace(config.dmar, clip_boxes=True),
            cwr=replace(config.cwr, clip_boxes=True, stop_at_degenerate=True),
            local_attention="masked_local",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, as configs and manifests store it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], base: "TagCLIPConfig | None" = None) -> "TagCLIPConfig":
        """`base` (the class defaults if None) with `values`, nested dicts included, written over it.

        Raises:
            UsageError: a field that does not exist or a value of the wrong type.
        """
        return overlay(base if base is not None else cls(), values, "tagging")

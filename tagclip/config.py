"""Settings of stage one (TagCLIP, arXiv 2312.12828): every constant of the paper is a named field here.

The defaults are the paper's constants for VOC and COCO. Constants that differ between data sets stand in the config of
each (configs/tagging); `wsss.pipeline.recipe.dataset_settings` reads them from Python. Behind a field's name its
docstring gives the paper's symbol in brackets; docs/constants.md is made from these docstrings.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from tagclip.errors import UsageError
from tagclip.settings import overlay

PRESETS = ("reference", "default")
# A score is the mean of two probabilities, of the class's best patch and of its region seen again. Above 0.25, at least
# one of the two readings holds the class for likelier than everything else together.
FEW_CLASSES_FLOOR = 0.25
MANY_CLASSES = 10


@dataclass(frozen=True)
class ImageConfig:
    """How an image becomes the model's input.

    Attributes:
        apply_exif: Turn the image upright first, as its EXIF orientation says. The published code does not.
        max_long_side: Longest side in pixels that the model sees; a larger image is scaled down, None never scales.
            Attention takes time and memory with the square of the number of patches.
        position_rounding: Whether interpolated positions are rounded to float16, as the published code does always
            ("float16") or, when tagging, away from the native size ("float16_off_native").
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
        enabled: Refine patch scores by attention; False leaves the coarse scores as they are.
        vote_mask (M): Keep only the attention between two patches that enough blocks find above their mean.
        vote_divisor: The share of blocks that must agree on a pair of patches is one in vote_divisor, rounded
            up: with 3, a model of L = 12 blocks needs 4 votes.
        class_mask (B_c): Let a class spread only from patches inside the boxes around its first refinement.
        first_block, last_block: The blocks whose mean attention spreads scores between patches. Positive numbers
            count from 1; negative ones count from the end as in Python lists, so that -4 to -2 are blocks 9 to 11 of
            12, and the same place of any other depth.
        clip_boxes: Quirk of the published code: the last row and column of patches never lie inside a box, because
            its exclusive ends are clipped to width - 1 and height - 1.
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
        enabled: Ask the model again about a crop of each likely class; False leaves the local scores as they are.
        threshold (t): A class is asked about again if its score is above lo + t (hi - lo), where lo and hi are the
            lowest and highest score of any patch and class of the image.
        mask_threshold: A patch belongs to the class where its score, scaled to [0, 1], is higher than this.
        attention_bias: Added to the attention of [CLS] to patches outside the class, so that it does not see them.
        local_weight: Share of the local score in the final score; the crop's score has the rest.
        clip_boxes: Quirk of the published code: the exclusive ends of the crop's box are clipped to width - 1 and
            height - 1.
        stop_at_degenerate: Quirk of the published code: a class whose box has no area ends the step for all later
            classes of the image, instead of being skipped.
        chunk_size: Most crops in one forward pass, which bounds memory; results do not depend on it.
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
class CdulConfig:
    """Global-local label initialisation of CDUL (arXiv 2307.16634, section 3.1), for the scorer "cdul".

    The authors published no code; what the paper leaves open is as in an independent reproduction (arXiv 2405.11574).

    Attributes:
        template: The one prompt template of its text classifier.
        snippets (n): The image is cut into n by n equal parts that do not overlap; 3 in the paper.
        threshold (zeta): A class takes its best part's score where that reaches this, else its worst part's. The paper
            does not give it: the reproduction cites a range of 0 to 0.4 from the supplement and has 0.5 as its default.
        difference_weight (lambda): Weight of half the difference between the global and the local score, which is added
            to their mean; 0 is the paper's main variant.
        background_words: Let the background words of the vocabulary take part in the softmax. CDUL has none, so that
            the scores of an image's classes sum to 1.
        chunk_size: Most parts in one forward pass, which bounds memory; results do not depend on it.
    """

    template: str = "a photo of a {}."
    snippets: int = 3
    threshold: float = 0.5
    difference_weight: float = 0.0
    background_words: bool = False
    chunk_size: int = 32

    def __post_init__(self) -> None:
        if min(self.snippets, self.chunk_size) < 1:
            raise UsageError(f"cdul.snippets {self.snippets} and cdul.chunk_size {self.chunk_size} must be at least 1")
        if not 0 <= self.difference_weight <= 1:
            raise UsageError(f"cdul.difference_weight {self.difference_weight} is not in [0, 1]")


@dataclass(frozen=True)
class TagRuleConfig:
    """Which scores become tags; see `tagclip.thresholds.select`.

    The published rule, "relative", compares the classes of an image with each other: some class always wins, also where
    none is there. With many classes that is seldom wrong; with one class or a few, `floor` lets an image have no tag.

    Attributes:
        rule: How scores s become tags: "relative" (the paper) takes s_c > min(s) + t (max(s) - min(s)), "absolute"
            takes s_c > t, "top_k" takes the best k, "zscore" takes z_c > t, where z_c is the score scaled by the mean
            and standard deviation first of the image's scores and then of the class (`class_scales`).
        threshold (t): The threshold of all classes, of every rule but "top_k".
        class_thresholds (t_c): Thresholds by class name, {"cat": 0.3}, from a calibration; classes that it does not
            name keep `threshold`. In Python, a tuple with one threshold per class works too. Empty: none.
        class_scales (m_c, sd_c): Of the rule "zscore": mean and standard deviation of each class over a collection,
            {"cat": (0.1, 0.8)}, of scores that were scaled per image; `tagclip calibrate --method zscore` finds them.
        top_k (k): Number of tags of each image under the rule "top_k".
        at_least_one: Give an image that no class passes its best class. None: with "relative" where it has no floor, as
            published, and not with "absolute". False: images may have no tag; "relative" then has the floor "auto" for
            any number of classes.
        floor: A tag needs a score above this, whatever the rule says; with "relative" the range of scores then begins
            at 0 and not at the lowest class, which could otherwise never be a tag. "auto": 0.25 with "relative" and
            fewer than 10 classes, otherwise none (the published data sets have 20 and more). None: no floor.
    """

    rule: Literal["relative", "absolute", "top_k", "zscore"] = "relative"
    threshold: float = 0.5
    class_thresholds: dict[str, float] | tuple[float, ...] = ()
    class_scales: dict[str, tuple[float, float]] | tuple[tuple[float, float], ...] = ()
    top_k: int = 3
    at_least_one: bool | None = None
    floor: float | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise UsageError(f"top_k {self.top_k} must be at least 1")
        if isinstance(self.floor, float | int) and not 0 <= self.floor < 1:
            raise UsageError(f"rule.floor {self.floor} is not in [0, 1), the range of the scores")
        for place, value in (("threshold", self.threshold), *_named("class_thresholds", self.class_thresholds)):
            if not math.isfinite(value):
                raise UsageError(f"rule.{place}: {value} is not a threshold; give a finite number")
        for place, (mean, deviation) in _named("class_scales", self.class_scales):
            if not (math.isfinite(mean) and math.isfinite(deviation) and deviation > 0):
                raise UsageError(
                    f"rule.{place}: {mean} and {deviation} are not a mean and a standard deviation above 0"
                )

    def floor_for(self, classes: int) -> float | None:
        """The floor that holds for a list of so many classes, None for none."""
        if self.floor != "auto":
            return self.floor
        may_be_none = classes < MANY_CLASSES if self.at_least_one is None else not self.at_least_one
        return FEW_CLASSES_FLOOR if self.rule == "relative" and may_be_none else None

    def keeps_best(self, classes: int) -> bool:
        """Whether an image that no class passes gets its best class."""
        if self.at_least_one is not None:
            return self.at_least_one
        return self.rule == "relative" and self.floor_for(classes) is None

    def for_classes(self, names: Sequence[str]) -> "TagRuleConfig":
        """The same rule with thresholds and scales in the order of `names`, where it has any.

        Raises:
            UsageError: a threshold or scale for a class that is not among `names`, a tuple of another length, or
                the rule "zscore" without the scale of each class.
        """
        thresholds, scales = self.class_thresholds, self.class_scales
        if isinstance(thresholds, dict):
            _refuse_unknown("class_thresholds", thresholds, names)
            thresholds = tuple(thresholds.get(name, self.threshold) for name in names) if thresholds else ()
        if isinstance(scales, dict):
            _refuse_unknown("class_scales", scales, names)
            missing = [name for name in names if name not in scales]
            if self.rule == "zscore" and missing:
                raise UsageError(
                    f"class_scales: none of {missing[0]!r}; `tagclip calibrate --method zscore` finds them"
                )
            scales = () if missing else tuple(scales[name] for name in names)
        if thresholds and len(thresholds) != len(names):
            raise UsageError(
                f"class_thresholds: {len(thresholds)} values for {len(names)} classes; name the classes, {{'cat': 0.3}}"
            )
        if len(scales) != len(names) and (scales or self.rule == "zscore"):
            raise UsageError(
                f"class_scales: {len(scales)} values for {len(names)} classes; `tagclip calibrate --method zscore` "
                "finds them"
            )
        return replace(self, class_thresholds=thresholds, class_scales=scales)

    def or_thresholds(self, thresholds: Mapping[str, float]) -> "TagRuleConfig":
        """The same rule, with these thresholds by class name where it has none of its own (those of a class file)."""
        if self.class_thresholds or not thresholds:
            return self
        return replace(self, class_thresholds=dict(thresholds))


def _named(what: str, values: Mapping[str, Any] | tuple[Any, ...]) -> list[tuple[str, Any]]:
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
    return [(f"{what} of {name!r}", value) for name, value in pairs]


def _refuse_unknown(what: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    unknown = [name for name in given if name not in names]
    if unknown:
        near = get_close_matches(unknown[0], names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the {len(names)} classes begin with {names[0]!r}"
        raise UsageError(f"{what}: {unknown[0]!r} is not a class; {hint}")


def _tagging_templates() -> tuple[str, ...]:
    # Imported when needed: looking for open_clip takes longer than all else in this module.
    from tagclip.clip.templates import TAGGING_TEMPLATES

    return TAGGING_TEMPLATES


@dataclass(frozen=True)
class TagCLIPConfig:
    """Everything that turns an image into scores and tags.

    Attributes:
        image: How an image becomes the model's input.
        dmar: Dual-masking attention refinement.
        cwr: Class-wise re-identification.
        rule: Which scores become tags.
        cdul: Global-local scores, for the scorer "cdul".
        templates: Prompt templates of the text classifier, averaged; all synonyms of a class join the average.
        scorer: "patches" scores patch by patch (the paper). For comparison: "global" is CLIP's ordinary answer from its
            [CLS] token, "cdul" the mean of that and of its answers for parts of the image.
        local_attention: How each token of the last block is made to see only itself: exactly ("local"), or by the
            published additive mask ("masked_local").
        batch_size: Most images of one patch grid in one forward pass.
        batch_patches: Cap on images times patches of a forward pass, so that a batch of large images stays small;
            None for none.
        recheck: After int8 arithmetic, images with a score less than this away from where its tag would change, or its
            class be looked at again by CWR, are scored again in float32; 0 for none. Ours, measured on drawn scenes.
    """

    image: ImageConfig = field(default_factory=ImageConfig)
    dmar: DMARConfig = field(default_factory=DMARConfig)
    cwr: CWRConfig = field(default_factory=CWRConfig)
    rule: TagRuleConfig = field(default_factory=TagRuleConfig)
    cdul: CdulConfig = field(default_factory=CdulConfig)
    templates: tuple[str, ...] = field(default_factory=_tagging_templates)
    scorer: Literal["patches", "global", "cdul"] = "patches"
    local_attention: Literal["local", "masked_local"] = "local"
    batch_size: int = 8
    batch_patches: int | None = 16384
    recheck: float = 0.005

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size {self.batch_size} must be at least 1")
        if not 0 <= self.recheck < math.inf:
            raise UsageError(f"recheck {self.recheck} must be a number of 0 or more, a distance between scores")

    @classmethod
    def preset(cls, name: str = "default") -> "TagCLIPConfig":
        """The constants of VOC and COCO with the published code's quirks ("reference") or without ("default").

        COCO-Stuff has other constants, which neither preset knows: `configs/tagging/cocostuff.py` holds them, and
        `wsss.pipeline.recipe.dataset_settings("tagging/cocostuff")` reads them.

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
            image=ImageConfig(apply_exif=False, max_long_side=None, position_rounding="float16_off_native"),
            dmar=replace(config.dmar, clip_boxes=True),
            cwr=replace(config.cwr, clip_boxes=True, stop_at_degenerate=True),
            rule=replace(config.rule, floor=None),
            local_attention="masked_local",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, as configs and manifests store it."""
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """`to_dict` without the settings of what is not used, which older runs do not know.

        `recheck` is one of int8 alone, so that whoever knows the model adds it.
        """
        values = self.to_dict()
        del values["recheck"]
        if self.scorer != "cdul":
            del values["cdul"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any], base: "TagCLIPConfig | None" = None) -> "TagCLIPConfig":
        """`base` (the class defaults if None) with `values`, nested dicts included, written over it.

        Raises:
            UsageError: a field that does not exist or a value of the wrong type.
        """
        return overlay(base if base is not None else cls(), values, "tagging")

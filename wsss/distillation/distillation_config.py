"""Settings of a tagger that is trained on a run's scores; a paper's symbol stands in brackets behind a field's name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tagclip.errors import UsageError
from tagclip.settings import overlay

DEMO = "demo"


@dataclass(frozen=True)
class AlignmentConfig:
    """Gradient-aligned update of the soft labels (CDUL, arXiv 2307.16634, section 3.2).

    Between epochs a label moves along the gradient of its divergence from the prediction, most where it is uncertain.

    Attributes:
        enabled: Move the labels; False trains on the run's own scores to the end.
        first_epoch: Number of epochs before the first update; 0 or 10 of 100 in the reproduction (arXiv 2405.11574).
        every: Number of epochs between updates; the reproduction has 10 of 100.
        mean, deviation (sigma): Of the Gaussian density of the label by which its update is weighted.
        step: Factor of the update; the paper has none.
        margin: Labels and predictions are kept this far from 0 and 1, where their log odds are not finite.
    """

    enabled: bool = False
    first_epoch: int = 2
    every: int = 2
    mean: float = 0.5
    deviation: float = 1.0
    step: float = 1.0
    margin: float = 1e-4

    def __post_init__(self) -> None:
        if self.every < 1 or self.first_epoch < 0:
            raise UsageError(f"align.every {self.every} must be at least 1, align.first_epoch {self.first_epoch} 0")
        if self.deviation <= 0 or not 0 < self.margin < 0.5:
            raise UsageError(
                f"align.deviation {self.deviation} must be positive, align.margin {self.margin} in (0, 0.5)"
            )

    def updates_after(self, epoch: int, epochs: int) -> bool:
        """Whether labels move after so many finished epochs; after the last one nothing would learn from it."""
        due = epoch >= max(self.first_epoch, 1) and (epoch - self.first_epoch) % self.every == 0
        return self.enabled and due and epoch < epochs


@dataclass(frozen=True)
class BiasConfig:
    """Correction of classes that score high or low everywhere (CCD, arXiv 2503.16873, its first pseudo labels).

    Attributes:
        enabled: Correct the labels.
        entropy: An image whose scores, scaled to sum to 1, have more entropy than this, in nats, is doubtful: it has no
            say in the bias of a class. With seven classes and fewer no image can be.
        floor: Labels are raised to this before they are divided by the bias of their class. CCD raises them, too; by
            how much is not in the description that this was written from, so that the default does not.
        doubtful_weight: Weight of a doubtful image in the loss, 0.1 in the published code; its script for VOC has 1.
    """

    enabled: bool = False
    entropy: float = 2.0
    floor: float = 0.0
    doubtful_weight: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.floor < 1 and 0 <= self.doubtful_weight <= 1):
            raise UsageError(
                f"bias.floor {self.floor} must be in [0, 1), bias.doubtful_weight {self.doubtful_weight} in [0, 1]"
            )


@dataclass(frozen=True)
class SecondLookConfig:
    """Second look at crops around the tagger's class activation maps (CCD, arXiv 2503.16873), once in training.

    Constants are those published for VOC.

    Attributes:
        enabled: Renew the labels; needs the CLIP of the run, more than one class, and a backbone with such maps.
        after_epoch: Number of finished epochs before the look.
        bound: Crops are made for the classes that the tagger predicts with at least a threshold. It is the lowest one
            with which it predicts fewer than bound + margin classes per image, in the mean over a sample; more than
            bound, if the classes are enough for that.
        margin: With `bound`.
        sample: Number of images drawn for the threshold.
        first_threshold: Where the search for the threshold begins.
        threshold_step: By which the threshold rises.
        peak: A crop is made around the pixels whose activation, scaled to [0, 1], is above this.
        side: Images are squeezed to squares of so many pixels, and crops of these brought to this longer side.
        offset: A crop is larger than the box around those pixels by so many pixels of the square on each side.
        template: The one prompt template of its text classifier.
        ratio: Share of the old label in the new one.
        with_label: Let no answer count for less than the old label, which is corrected already; otherwise the crops'
            answers alone.
        reading_order_box: Quirk of the published code: the box goes from the first to the last such pixel in reading
            order, not around all of them.
        chunk_size: Most images or crops in one forward pass, which bounds memory.
    """

    enabled: bool = False
    after_epoch: int = 2
    bound: float = 4.0
    margin: float = 2.0
    sample: int = 100
    first_threshold: float = 0.001
    threshold_step: float = 0.001
    peak: float = 0.95
    side: int = 640
    offset: int = 80
    template: str = "a photo of the {}"
    ratio: float = 0.2
    with_label: bool = True
    reading_order_box: bool = False
    chunk_size: int = 8

    def __post_init__(self) -> None:
        for name in ("after_epoch", "sample", "chunk_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"second_look.{name} {getattr(self, name)} must be at least 1")
        if self.side < 32 or self.offset < 0:
            raise UsageError(
                f"second_look.side {self.side} must be at least 32 pixels, second_look.offset {self.offset} 0"
            )
        for name in ("first_threshold", "threshold_step", "peak"):
            if not 0 < getattr(self, name) < 1:
                raise UsageError(f"second_look.{name} {getattr(self, name)} must be in (0, 1)")
        if not 0 <= self.ratio <= 1 or self.bound < 0 or self.margin <= 0:
            raise UsageError(
                f"second_look.ratio {self.ratio} must be in [0, 1], second_look.bound {self.bound} at least 0, "
                f"second_look.margin {self.margin} positive"
            )
        if self.template.count("{}") != 1:
            raise UsageError(f"second_look.template {self.template!r}: needs exactly one '{{}}' for the class name")


@dataclass(frozen=True)
class DistillationConfig:
    """A classifier trained on a run's scores as soft labels. No published constants where none is named.

    Attributes:
        backbone: A ResNet, ConvNeXt or ViT of torchvision by its name, or "demo", the image tower of the demo model.
            None: "demo" for a run of the demo model, otherwise "resnet50".
        side: Images are squeezed to squares of so many pixels.
        epochs: Number of passes over the images.
        batch_size: Images per step.
        lr: Peak learning rate of AdamW: linear warm-up, then cosine to 0.
        head_lr: Factor of the learning rate of the last layer, which begins at random; 10 in CCD.
        weight_decay: Of all matrices.
        warmup: Share of the steps in which the learning rate rises.
        smallest_crop: Training sees crops whose sides are at least this share of the image's; 1 is the whole image.
        flip: Mirror every second image in training.
        amp: Train in bfloat16 on an accelerator.
        seed: Of weights, order, crops.
        align: Gradient-aligned update of the labels.
        bias: Correction of the labels' bias.
        second_look: Renewal of the labels by CLIP's answers for crops. Where labels are aligned after the same epoch,
            they are aligned first.
    """

    backbone: str | None = None
    side: int = 224
    epochs: int = 20
    batch_size: int = 32
    lr: float = 2e-4
    head_lr: float = 10.0
    weight_decay: float = 0.05
    warmup: float = 0.05
    smallest_crop: float = 0.8
    flip: bool = True
    amp: bool = False
    seed: int = 0
    align: AlignmentConfig = field(default_factory=AlignmentConfig)
    bias: BiasConfig = field(default_factory=BiasConfig)
    second_look: SecondLookConfig = field(default_factory=SecondLookConfig)

    def __post_init__(self) -> None:
        for name in ("side", "epochs", "batch_size", "lr", "head_lr"):
            if getattr(self, name) <= 0:
                raise UsageError(f"tagger.{name} {getattr(self, name)} must be positive")
        if self.side < 32:
            raise UsageError(f"tagger.side {self.side} must be at least 32 pixels")
        if not 0 < self.smallest_crop <= 1 or not 0 <= self.warmup < 1:
            raise UsageError(
                f"tagger.smallest_crop {self.smallest_crop} must be in (0, 1], tagger.warmup {self.warmup} in [0, 1)"
            )
        if self.second_look.enabled and self.second_look.after_epoch >= self.epochs:
            raise UsageError(
                f"tagger.second_look.after_epoch {self.second_look.after_epoch}: nothing would learn from a look after "
                f"the last of {self.epochs} epochs; set a smaller one, or more --epochs"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], base: DistillationConfig | None = None) -> DistillationConfig:
        """`base` (the class defaults if None) with `values`, nested dicts included, written over it.

        Raises:
            UsageError: a field that does not exist or a value of the wrong type.
        """
        return overlay(base if base is not None else cls(), values, "tagger")

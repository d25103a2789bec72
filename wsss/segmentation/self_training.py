"""One round of self-training: the trained model's predictions, held to the image's tags, become the next masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagclip.errors import UsageError
from tagclip.images import decode_image
from tagclip.vocabulary import Vocabulary

from .pictures import save_label_map
from .predictor import Predictor, refine
from .preflight import IGNORE
from .sources import MaskSource, Sample, label_names


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Settings of self-training (a top-level `self_training` dict in a config).

    Attributes:
        rounds: how many times masks are remade and the model trained anew.
        confidence: pixels whose highest probability is lower become 255; None keeps all.
        restrict_to_tags: only the image's tags and the background compete. An image without tags keeps its mask.
        apply_exif: photos are turned upright first; training takes it from the train pipeline.
    """

    rounds: int = 0
    confidence: float | None = 0.8
    restrict_to_tags: bool = True
    apply_exif: bool = True

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise UsageError(f"self_training rounds {self.rounds} must be >= 0")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise UsageError(f"self_training confidence {self.confidence} is not in [0, 1]; None keeps all pixels")


def relabel(
    predictor: Predictor,
    source: MaskSource,
    vocabulary: Vocabulary,
    out: Path,
    config: SelfTrainingConfig,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Writes the next round's mask of every image; masks that exist are kept, so an interrupted call goes on.

    Args:
        predictor: the trained model; its CRF setting applies.
        source: images with tags (a run folder, or any source when `restrict_to_tags` is off).
        vocabulary: the classes.
        out: folder of the masks.
        config: settings.
        progress: called with the number of images done.

    Returns:
        How many masks were written.
    """
    palette = label_names(vocabulary)[1]
    written = 0
    for done, sample in enumerate(source.samples, start=1):
        path = out / f"{sample.id}.png"
        if not path.is_file():
            save_label_map(path, new_labels(predictor, sample, vocabulary, config), palette)
            written += 1
        progress(done)
    return written


def new_labels(predictor: Predictor, sample: Sample, vocabulary: Vocabulary, config: SelfTrainingConfig) -> np.ndarray:
    """The next round's label map of one image, (H, W) uint8."""
    rgb = decode_image(sample.image, apply_exif=config.apply_exif)
    allowed = np.arange(len(predictor.segmentor.classes))
    if config.restrict_to_tags:
        if not sample.tags:
            from wsss.evaluation import read_mask

            return read_mask(sample.mask)
        allowed = np.array(allowed_labels(sample.tags, vocabulary))
    probabilities = predictor.probabilities(rgb, allowed.tolist())
    winner = probabilities.argmax(axis=0)
    if predictor.config.crf is not None and len(allowed) > 1:
        winner = refine(rgb, probabilities, predictor.config.crf)
    labels = allowed[winner].astype(np.uint8)
    if config.confidence is not None:
        labels[probabilities.max(axis=0) < config.confidence] = IGNORE
    return labels


def allowed_labels(tags: tuple[str, ...], vocabulary: Vocabulary) -> list[int]:
    """Labels of the tags, the background first if there is one."""
    offset = 1 if vocabulary.has_background else 0
    return [0] * offset + sorted({vocabulary.index(tag) + offset for tag in tags})

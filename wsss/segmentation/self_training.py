"""One round of self-training: the trained model's predictions, held to the image's tags, become the next masks.

The run's own class maps may have a say in them (`maps_share`). The two err differently: a map is made from one image
and confuses the names of what touches, a model trained on many has seen each name alone; but it misses parts of
objects that the maps cover.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagclip.errors import UsageError
from tagclip.images import decode_image
from tagclip.vocabulary import Vocabulary
from wsss.files.atomic import is_whole
from wsss.files.classes import write_vocabulary
from wsss.files.mask_files import ignore_label, label_dtype, read_mask
from wsss.files.provenance import claim_masks
from wsss.files.sources import MaskSource, Sample
from wsss.segmentation.overlays import save_label_map
from wsss.segmentation.predictor import Predictor
from wsss.segmentation.run_maps import RunMaps


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Settings of self-training (a top-level `self_training` dict in a config).

    Attributes:
        rounds: how many times masks are remade and the model trained anew.
        confidence: pixels whose highest probability (refined, if `refine`) is lower are ignored; None
            keeps all.
        restrict_to_tags: only the image's tags and the background compete. An image without tags keeps its mask.
        maps_share: weight of the run's class maps in the mean of their probabilities and the model's: 0 is the model
            alone, 1 the maps alone. Needs a run folder of stage two.
        refine: refine the probabilities with the run's refiner (the dense CRF, usually) and its constants; likewise.
        apply_exif: photos are turned upright first; training takes it from the train pipeline.
    """

    rounds: int = 0
    confidence: float | None = 0.8
    restrict_to_tags: bool = True
    maps_share: float = 0.0
    refine: bool = False
    apply_exif: bool = True

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise UsageError(f"self_training rounds {self.rounds} must be >= 0")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise UsageError(f"self_training confidence {self.confidence} is not in [0, 1]; None keeps all pixels")
        if not 0 <= self.maps_share <= 1:
            raise UsageError(f"self_training maps_share {self.maps_share} is not in [0, 1]; 0 is the model alone")

    @property
    def needs_maps(self) -> bool:
        """Whether the source must be a run folder with class maps."""
        return self.maps_share > 0 or self.refine

    def mask_settings(self) -> dict[str, object]:
        """What the masks of a round depend on; not how many rounds there are."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "rounds"}


def relabel(
    predictor: Predictor,
    source: MaskSource,
    vocabulary: Vocabulary,
    out: Path,
    config: SelfTrainingConfig,
    progress: Callable[[int], object] = lambda done: None,
    *,
    made_by: str | None = None,
) -> int:
    """Writes the next round's mask of every image; masks that exist are kept, so that a call can be resumed.

    Args:
        predictor: the trained model.
        source: images with tags (a run folder, or any source when `restrict_to_tags` is off).
        vocabulary: the classes.
        out: folder of the masks and of `masks.json`, which says how they were made.
        config: settings.
        progress: called with the number of images done.
        made_by: digest of the model's checkpoint, if masks of another checkpoint are to be refused.

    Returns:
        How many masks were written.

    Raises:
        UsageError: class maps are asked of a source that has none.
        RunError: `out` holds masks of other settings.
        ImageError: an image or its maps cannot be read.
    """
    palette = vocabulary.label_palette
    maps = RunMaps.open(source.root, vocabulary) if config.needs_maps else None
    settings = config.mask_settings() | ({} if made_by is None else {"checkpoint": made_by})
    claim_masks(out, settings, overwrite=False, name=str(out))
    write_vocabulary(out, vocabulary)
    written = 0
    for done, sample in enumerate(source.samples, start=1):
        path = out / f"{sample.id}.png"
        if not (path.is_file() and is_whole(path)):
            save_label_map(path, new_labels(predictor, sample, vocabulary, config, maps), palette)
            written += 1
        progress(done)
    return written


def new_labels(
    predictor: Predictor,
    sample: Sample,
    vocabulary: Vocabulary,
    config: SelfTrainingConfig,
    maps: RunMaps | None = None,
) -> np.ndarray:
    """The next round's label map of one image, (H, W) uint8 or uint16; `maps` where `config.needs_maps`."""
    rgb = decode_image(sample.image, apply_exif=config.apply_exif)
    count = len(predictor.segmentor.classes)
    dtype, allowed = label_dtype(count), np.arange(count)
    if config.restrict_to_tags:
        if not sample.tags:
            return read_mask(sample.mask).astype(dtype)
        allowed = np.array(allowed_labels(sample.tags, vocabulary))
    if not config.restrict_to_tags and maps is None:
        labels, sure = predictor.labels_with_confidence(rgb)  # however many labels there are
        return _confident(labels, sure, config, count)
    probabilities = predictor.probabilities(rgb, allowed.tolist())
    if maps is not None and config.maps_share:
        by_maps = maps.probabilities(sample.id, allowed.tolist(), rgb.shape[:2])
        probabilities = (1 - config.maps_share) * probabilities + config.maps_share * by_maps
    if maps is not None and config.refine:
        probabilities = maps.refine(rgb, probabilities)
    labels = allowed[probabilities.argmax(axis=0)].astype(dtype)
    return _confident(labels, probabilities.max(axis=0), config, count)


def _confident(labels: np.ndarray, confidence: np.ndarray, config: SelfTrainingConfig, count: int) -> np.ndarray:
    """Labels with the ignore label in the place of those that are not sure enough."""
    if config.confidence is not None:
        labels[confidence < config.confidence] = ignore_label(count)
    return labels


def allowed_labels(tags: tuple[str, ...], vocabulary: Vocabulary) -> list[int]:
    """Labels of the tags, the background first if there is one."""
    offset = 1 if vocabulary.has_background else 0
    return [0] * offset + sorted({vocabulary.index(tag) + offset for tag in tags})

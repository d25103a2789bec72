"""Looks at every image and mask before training, so that a bad file is found now and not after hours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from tagclip.arguments import as_names
from tagclip.errors import ImageError, RunError
from tagclip.images import image_size
from wsss.files.concurrency import bounded_map
from wsss.files.mask_files import IGNORE_8_BIT, count_labels, ignore_label
from wsss.files.sources import MaskSource, Sample

DEEP_MODES = ("I;16", "I;16B", "I")  # Pillow's, of grey PNGs of 16 bits


@dataclass(frozen=True)
class PreflightConfig:
    """What the check looks at.

    Attributes:
        ids: decode every mask and compare its ids with the classes; False reads headers only.
        apply_exif: images are turned upright before training (as `LoadUprightImage` does by default);
            `train_segmentor` takes it from the pipelines.
        ignore_index: label without a class; None: 255, or 65535 of more labels than 255.
        workers: reading threads.
    """

    ids: bool = True
    apply_exif: bool = True
    ignore_index: int | None = None
    workers: int = 4


@dataclass(frozen=True)
class PreflightReport:
    """What a check that passed has seen.

    Attributes:
        images: number of pairs.
        pixels: (labels,) int64, pixels by label, zeros if only headers were read.
        ignored: pixels without a label.
    """

    images: int
    pixels: np.ndarray
    ignored: int = 0

    @property
    def ignored_share(self) -> float:
        """Share of the pixels that the loss ignores."""
        total = int(self.pixels.sum()) + self.ignored
        return self.ignored / total if total else 0.0


def check_masks(
    source: MaskSource,
    class_names: Sequence[str],
    config: PreflightConfig | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> PreflightReport:
    """Reads every pair of a source.

    Args:
        source: images and masks.
        class_names: names by label.
        config: what to look at.
        progress: called with the number of pairs done.

    Raises:
        RunError: naming the first bad mask, what is wrong with it, how many others are bad, and the remedy.
    """
    source.require_complete()
    class_names = as_names(class_names, "class names")
    config = config or PreflightConfig()
    if config.ignore_index is None:
        config = replace(config, ignore_index=ignore_label(len(class_names)))
    counts: Counter[int] = Counter()
    problems: list[str] = []
    with ThreadPoolExecutor(max_workers=max(1, config.workers)) as executor:

        def inspect(sample: Sample) -> str | dict[int, int]:
            return _inspect(sample, class_names, config)

        pairs = bounded_map(executor, inspect, source.samples, 4 * max(1, config.workers))
        for done, (_, outcome) in enumerate(pairs, start=1):
            if isinstance(outcome, str):
                problems.append(outcome)
            else:
                counts.update(outcome)
            progress(done)
    if problems:
        others = f" ({len(problems) - 1} more masks are bad)" if len(problems) > 1 else ""
        raise RunError(problems[0] + others)
    ignored = counts.pop(config.ignore_index, 0)
    if ignored and not counts:
        raise RunError(f"{source.root}: every pixel of every mask is {config.ignore_index} (ignored), nothing to learn")
    pixels = np.array([counts[label] for label in range(len(class_names))], np.int64)
    return PreflightReport(len(source.samples), pixels, ignored)


def _inspect(sample: Sample, class_names: Sequence[str], config: PreflightConfig) -> str | dict[int, int]:
    """Pixel counts of the mask, or what is wrong."""
    try:
        size = image_size(sample.image, apply_exif=config.apply_exif)
    except ImageError as error:
        return f"image {error}"
    try:
        with Image.open(sample.mask) as mask:
            deep = config.ignore_index > IGNORE_8_BIT
            if mask.mode not in (("P", "L", *DEEP_MODES) if deep else ("P", "L")):
                return (
                    f"mask {sample.mask} is a {mask.mode} image, but must hold class ids (palette or "
                    f"{'8- or 16-bit' if deep else '8-bit'} grey); convert its colours to ids"
                )
            eight_bits = mask.mode in ("P", "L")
            if mask.size != (size.width, size.height):
                return (
                    f"mask {sample.mask} is {mask.size[0]}x{mask.size[1]}, but its image {sample.image} is "
                    f"{size.width}x{size.height}; make the mask again or scale it with nearest neighbour"
                )
            if not config.ids:
                return {}
            counts = count_labels(np.asarray(mask))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        return f"mask {sample.mask} cannot be read ({error}); make it again"
    if deep and eight_bits and IGNORE_8_BIT in counts:
        return (
            f"mask {sample.mask} has 8 bits and the value {IGNORE_8_BIT}, which is a class here, "
            f"{config.ignore_index} being ignored; save it as a 16-bit PNG"
        )
    beyond = [label for label in counts if label >= len(class_names) and label != config.ignore_index]
    if beyond:
        return (
            f"mask {sample.mask} holds id {beyond[0]}, but there are {len(class_names)} labels "
            f"(0 {class_names[0]} to {len(class_names) - 1} {class_names[-1]}); is it the right vocabulary?"
        )
    return counts

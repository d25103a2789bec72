"""Looks at every image and mask before training, so that a bad file is found now and not after hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from tagclip.arguments import as_names
from tagclip.errors import ImageError, RunError
from tagclip.images import image_size
from wsss.files.concurrency import bounded_map
from wsss.files.sources import MaskSource, Sample

IGNORE = 255


@dataclass(frozen=True)
class PreflightConfig:
    """What the check looks at.

    Attributes:
        ids: decode every mask and compare its ids with the classes; False reads headers only.
        apply_exif: images are turned upright before training (as `LoadUprightImage` does by default);
            `train_segmentor` takes it from the pipelines.
        ignore_index: label without a class.
        workers: reading threads.
    """

    ids: bool = True
    apply_exif: bool = True
    ignore_index: int = IGNORE
    workers: int = 4


@dataclass(frozen=True)
class PreflightReport:
    """What a check that passed has seen.

    Attributes:
        images: number of pairs.
        pixels: (256,) int64, pixels by label, zeros if only headers were read.
    """

    images: int
    pixels: np.ndarray

    @property
    def ignored_share(self) -> float:
        """Share of the pixels that the loss ignores."""
        total = int(self.pixels.sum())
        return float(self.pixels[IGNORE] / total) if total else 0.0


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
    pixels = np.zeros(256, np.int64)
    problems: list[str] = []
    with ThreadPoolExecutor(max_workers=max(1, config.workers)) as executor:

        def inspect(sample: Sample) -> str | np.ndarray:
            return _inspect(sample, class_names, config)

        pairs = bounded_map(executor, inspect, source.samples, 4 * max(1, config.workers))
        for done, (_, outcome) in enumerate(pairs, start=1):
            if isinstance(outcome, str):
                problems.append(outcome)
            else:
                pixels += outcome
            progress(done)
    if problems:
        others = f" ({len(problems) - 1} more masks are bad)" if len(problems) > 1 else ""
        raise RunError(problems[0] + others)
    if config.ids and pixels.sum() and pixels[config.ignore_index] == pixels.sum():
        raise RunError(f"{source.root}: every pixel of every mask is {config.ignore_index} (ignored), nothing to learn")
    return PreflightReport(len(source.samples), pixels)


def _inspect(sample: Sample, class_names: Sequence[str], config: PreflightConfig) -> str | np.ndarray:
    """Pixel counts of the mask, or what is wrong."""
    try:
        size = image_size(sample.image, apply_exif=config.apply_exif)
    except ImageError as error:
        return f"image {error}"
    try:
        with Image.open(sample.mask) as mask:
            if mask.mode not in ("P", "L"):
                return (
                    f"mask {sample.mask} is a {mask.mode} image, but must hold class ids (palette or 8-bit grey); "
                    "convert its colours to ids"
                )
            if mask.size != (size.width, size.height):
                return (
                    f"mask {sample.mask} is {mask.size[0]}x{mask.size[1]}, but its image {sample.image} is "
                    f"{size.width}x{size.height}; make the mask again or scale it with nearest neighbour"
                )
            if not config.ids:
                return np.zeros(256, np.int64)
            counts = np.bincount(np.asarray(mask).ravel(), minlength=256).astype(np.int64)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        return f"mask {sample.mask} cannot be read ({error}); make it again"
    beyond = [int(i) for i in np.flatnonzero(counts) if i >= len(class_names) and i != config.ignore_index]
    if beyond:
        return (
            f"mask {sample.mask} holds id {beyond[0]}, but there are {len(class_names)} labels "
            f"(0 {class_names[0]} to {len(class_names) - 1} {class_names[-1]}); is it the right vocabulary?"
        )
    return counts

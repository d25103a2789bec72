"""Decoding ahead of the model: threads that prepare the images of a plan's batches, a bounded number at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from tagclip.config import ImageConfig
from tagclip.errors import ImageError
from tagclip.images import decode_image, prepare_image
from tagclip.tagger import ImageModel
from wsss.files.concurrency import bounded_map
from wsss.files.photos import require_same_file
from wsss.pipeline.planning import PlannedImage

BATCHES_AHEAD = 2  # decoded batches that may wait for the model


@dataclass
class DecodedBatch:
    """A batch without the images that cannot be decoded.

    Attributes:
        images: what is left; may be empty.
        inputs: of each, (3, H, W) float32.
        failures: (image, error) of the others.
        seconds: spent by the threads.
    """

    images: list[PlannedImage]
    inputs: list[Tensor]
    failures: list[tuple[PlannedImage, ImageError]]
    seconds: float


def decode_planned(image: PlannedImage, model: ImageModel, config: ImageConfig) -> Tensor | ImageError:
    """The model's input of an image, (3, H, W) float32, or why there is none."""
    try:
        rgb = decode_image(image.file.path, apply_exif=config.apply_exif)
        require_same_file(image.file.path, image.file_size)
        if rgb.shape[:2] != (image.size.height, image.size.width):
            raise ImageError(f"{image.file.path}: its size is not what its header said; it may have been changed")
        return prepare_image(rgb, model.patch_size, model.mean, model.std, max_long_side=config.max_long_side)
    except ImageError as error:
        return error
    except MemoryError:
        return ImageError(f"{image.file.path}: no memory to decode it; shrink it first")


def decode_batches(
    batches: Sequence[Sequence[PlannedImage]], threads: Executor, model: ImageModel, config: ImageConfig
) -> Iterator[DecodedBatch]:
    """Each batch in turn, while the next ones are being decoded."""

    def decode(item: tuple[int, PlannedImage]) -> tuple[Tensor | ImageError, float]:
        start = time.perf_counter()
        return decode_planned(item[1], model, config), time.perf_counter() - start

    ahead = BATCHES_AHEAD * max((len(batch) for batch in batches), default=1)
    items = ((number, image) for number, batch in enumerate(batches) for image in batch)
    outcomes = bounded_map(threads, decode, items, ahead)
    for _, group in groupby(outcomes, key=lambda outcome: outcome[0][0]):
        decoded = DecodedBatch([], [], [], 0.0)
        for (_, image), (found, seconds) in group:
            decoded.seconds += seconds
            if isinstance(found, ImageError):
                decoded.failures.append((image, found))
            else:
                decoded.images.append(image)
                decoded.inputs.append(found)
        yield decoded

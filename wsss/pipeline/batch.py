"""Run a batch through the model safely: one bad image never ends a run, and no score that is no number is written."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from tagclip.clip import Grid
from tagclip.errors import ImageError, RunError
from tagclip.precision import exact_float32
from tagclip.tagger import ImageModel, ImageTagger, TagResult
from wsss.pipeline.planning import PlannedImage

Result = TypeVar("Result")
Work = Callable[[Sequence[PlannedImage], Tensor], Sequence[Result | None]]

PATIENCE = 8  # images without one finite score before the model itself is to blame
_OUT_OF_MEMORY = re.compile(r"out of memory|can'?t allocate memory|not enough memory|cannot allocate memory", re.I)
logger = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on an accelerator; an illegal access does not."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def finite_results(tagger: ImageTagger, scores: Tensor, grid: Grid) -> list[TagResult | None]:
    """The tag rule applied to the scores (B, targets) of a batch; None for an image with a score that is not finite."""
    finite = torch.isfinite(scores).all(dim=1).tolist()
    results = tagger.results(torch.nan_to_num(scores), grid)
    return [result if good else None for result, good in zip(results, finite, strict=True)]


def _on_device(inputs: Sequence[Tensor], device: torch.device) -> Tensor:
    """One tensor of all inputs; through pinned memory to a GPU, from which it copies several times as fast."""
    if device.type != "cuda":
        return torch.stack(list(inputs)).to(device)
    pinned = torch.empty(len(inputs), *inputs[0].shape, dtype=inputs[0].dtype, pin_memory=True)
    torch.stack(list(inputs), out=pinned)
    return pinned.to(device, non_blocking=True)


@dataclass
class BatchOutcome(Generic[Result]):
    """What became of a batch; every image is in one of the two lists.

    Attributes:
        done: (image, its result), in the batch's order.
        failed: (image, why there is no result).
    """

    done: list[tuple[PlannedImage, Result]] = field(default_factory=list)
    failed: list[tuple[PlannedImage, ImageError]] = field(default_factory=list)


@dataclass
class BatchRunner(Generic[Result]):
    """Runs batches, halves those that do not fit into memory, and fails single images instead of the run.

    Attributes:
        model: batches are moved to its device.
        work: does a batch, (B, 3, H, W) on the model's device; one result per image, None where the model's scores
            are not finite.
        finite, broken: images so far with and without finite scores.
    """

    model: ImageModel
    work: Work[Result]
    finite: int = 0
    broken: int = 0

    def __call__(self, images: Sequence[PlannedImage], inputs: Sequence[Tensor]) -> BatchOutcome[Result]:
        """Results of a batch.

        Args:
            images: B images of one patch grid.
            inputs: of each, (3, H, W) float32 on the CPU.

        Raises:
            RunError: the model gives nothing but scores that are not finite.
        """
        outcome: BatchOutcome[Result] = BatchOutcome()
        self._run(list(images), list(inputs), outcome)
        if self.broken >= PATIENCE and not self.finite:
            raise RunError(self._all_broken())
        return outcome

    def finish(self) -> None:
        """To be called when all batches are done.

        Raises:
            RunError: no image had finite scores.
        """
        if self.broken and not self.finite:
            raise RunError(self._all_broken())

    def _run(self, images: list[PlannedImage], inputs: list[Tensor], outcome: BatchOutcome[Result]) -> None:
        try:
            with exact_float32():
                results: Sequence[Result | None] | None = self.work(images, _on_device(inputs, self.model.device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            results = None  # continue outside the handler: the traceback holds the tensors of the batch
        if results is not None:
            self._sort(images, results, outcome)
            return
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        grid = images[0].grid
        if len(images) == 1:
            message = (
                f"{images[0].file.path}: no memory for {grid.height} x {grid.width} patches; set a smaller "
                "tagging.image.max_long_side and masks.image.max_long_side"
            )
            outcome.failed.append((images[0], ImageError(message)))
            return
        half = len(images) // 2
        logger.warning(
            "no memory for %d images of %d x %d patches: going on with %d at a time; --batch-size %d avoids this",
            len(images), grid.height, grid.width, len(images) - half, len(images) - half,
        )  # fmt: skip
        self._run(images[:half], inputs[:half], outcome)
        self._run(images[half:], inputs[half:], outcome)

    def _sort(
        self, images: Sequence[PlannedImage], results: Sequence[Result | None], outcome: BatchOutcome[Result]
    ) -> None:
        for image, result in zip(images, results, strict=True):
            if result is None:
                self.broken += 1
                message = f"{image.file.path}: its scores are not finite; try --dtype float32"
                outcome.failed.append((image, ImageError(message)))
            else:
                self.finite += 1
                outcome.done.append((image, result))

    def _all_broken(self) -> str:
        dtype = self.model.number_format
        remedy = "other weights" if dtype == "float32" else "--dtype float32, or other weights"
        return (
            f"{self.model.name}: no image so far has finite scores ({self.broken} tried): the weights are damaged or "
            f"do not stand {dtype} arithmetic; use {remedy}"
        )

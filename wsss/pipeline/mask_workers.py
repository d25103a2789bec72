"""The stage after the model: masks from stored CAMs, in processes that overlap it and never load PyTorch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tagclip.errors import ImageError, RunError
from tagclip.images import decode_image
from wsss.config import MaskConfig
from wsss.files.atomic import atomic_file
from wsss.files.map_files import read_maps
from wsss.files.mask_files import encode_mask
from wsss.masks.label_map import mask_from_maps

IDS = 256


@dataclass(frozen=True)
class MaskJob:
    """One image whose CAMs are on disk and whose mask is wanted."""

    id: str
    image: Path
    maps: Path
    mask: Path


@dataclass(frozen=True)
class MaskStage:
    """What every mask of a run is made with; small, it travels with each job.

    Attributes:
        config: settings of the masks.
        has_background: see `Vocabulary`.
        palette: colours by label, (labels, 3) uint8 RGB.
        scratch: folder for temporary files on the masks' file system.
        device: where PAMR runs.
    """

    config: MaskConfig
    has_background: bool
    palette: np.ndarray
    scratch: Path
    device: str = "cpu"


@dataclass(frozen=True)
class MaskReport:
    """What became of a job.

    Attributes:
        counts: pixels by label.
        seconds: time it took; processor time is about the same, a job has one thread.
        problem: why there is no mask, None if there is one.
    """

    counts: dict[int, int]
    seconds: float
    problem: str | None = None


def make_mask(stage: MaskStage, job: MaskJob) -> MaskReport:
    """Decodes the image, reads its CAMs, makes the mask and writes it.

    The mask is a function of these two files and the settings alone: made at once, by a resumed run or by a later
    one, it has the same bytes.

    Raises:
        RunError: full disk.
    """
    start = time.perf_counter()
    try:
        stored = read_maps(job.maps)
        rgb = decode_image(job.image, apply_exif=stage.config.image.apply_exif)
        if rgb.shape[:2] != stored.size:
            raise ImageError(f"{job.image}: its class maps were made of another size; delete {job.maps} and run again")
        labels = mask_from_maps(
            rgb,
            stored.maps,
            stored.classes.tolist(),
            stage.config,
            has_background=stage.has_background,
            device=stage.device,
        )
    except ImageError as error:
        return MaskReport({}, time.perf_counter() - start, str(error))
    with atomic_file(job.mask, stage.scratch) as file:
        file.write(encode_mask(labels.mask, stage.palette, stage.config.ignore_label))
    return MaskReport(count_labels(labels.mask), time.perf_counter() - start)


def count_labels(mask: np.ndarray) -> dict[int, int]:
    """Pixels by label of a (H, W) uint8 mask; labels that do not occur are left out."""
    counts = np.bincount(mask.ravel(), minlength=IDS)
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


class MaskWorkers:
    """A bounded queue of mask jobs before a few processes (threads of this process for refiners that use torch).

    Args:
        stage: settings.
        processes: number of workers.
        queue: most jobs that wait or run; `submit` blocks beyond it, which bounds memory and disk traffic.
        in_process: work in a thread here: for PAMR, which uses the model's device.
    """

    def __init__(self, stage: MaskStage, processes: int, queue: int, *, in_process: bool = False):
        self.stage, self.queue = stage, max(queue, 1)
        self._executor: Executor
        if in_process:
            self._executor = ThreadPoolExecutor(max_workers=1)
        else:
            # Spawned, not forked: a fork of a process with PyTorch's threads (or a CUDA context) may hang.
            self._executor = ProcessPoolExecutor(
                max_workers=processes, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
            )
        self._jobs: dict[Future[MaskReport], MaskJob] = {}

    def room(self) -> int:
        """How many jobs `submit` takes without waiting."""
        return self.queue - len(self._jobs)

    def submit(self, job: MaskJob) -> Iterator[tuple[MaskJob, MaskReport]]:
        """Adds a job, waiting for room; yields what has been finished meanwhile.

        Raises:
            RunError: a full disk, or a worker that died.
        """
        while self.room() <= 0:
            yield from self._collect(wait_for_one=True)
        try:
            self._jobs[self._executor.submit(_quiet_make_mask, self.stage, job)] = job
        except BrokenProcessPool:
            raise _worker_died(job) from None
        yield from self._collect(wait_for_one=False)

    def finish(self) -> Iterator[tuple[MaskJob, MaskReport]]:
        """Waits for all jobs, yielding each as it is done."""
        while self._jobs:
            yield from self._collect(wait_for_one=True)

    def collect(self) -> Iterator[tuple[MaskJob, MaskReport]]:
        """Yields what is done, without waiting."""
        yield from self._collect(wait_for_one=False)

    def _collect(self, *, wait_for_one: bool) -> Iterator[tuple[MaskJob, MaskReport]]:
        if wait_for_one:
            done, _ = wait(self._jobs, return_when=FIRST_COMPLETED)
        else:
            done = {future for future in self._jobs if future.done()}
        for future in done:
            job = self._jobs.pop(future)
            try:
                report = future.result()
            except BrokenProcessPool:
                raise _worker_died(job) from None
            yield job, report

    def close(self, *, cancel: bool = False) -> None:
        """Ends the workers; with `cancel`, jobs that have not begun are dropped."""
        self._executor.shutdown(wait=True, cancel_futures=cancel)


def _worker_died(job: MaskJob) -> RunError:
    return RunError(
        f"{job.id}: a mask worker was ended from outside, most likely for want of memory; use fewer --crf-workers and "
        "run the same command again"
    )


def _quiet_make_mask(stage: MaskStage, job: MaskJob) -> MaskReport:
    try:
        return make_mask(stage, job)
    except RunError as error:
        # Without its cause chain: tracebacks of another process say nothing to a user.
        raise RunError(str(error)) from None


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    # A killed parent cannot say goodbye, and its queue's pipe stays open in the other workers.
    if parent is not None:
        threading.Thread(target=leave_with_parent, daemon=True).start()

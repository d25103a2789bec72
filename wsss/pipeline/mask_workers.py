"""The stage after the model: masks from stored CAMs, in processes beside it that load PyTorch only if they must."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from tagclip.errors import ImageError, RunError, TagclipError
from tagclip.images import decode_image
from tagclip.stored_files import FilePlace
from wsss.config import MaskConfig
from wsss.files.atomic import atomic_file
from wsss.files.confidence_files import encode_confidence
from wsss.files.map_files import read_maps
from wsss.files.mask_files import count_labels, encode_mask
from wsss.files.photos import require_same_file
from wsss.files.spawning import without_main
from wsss.masks.crf import crf_engine, is_cpu
from wsss.masks.label_map import mask_from_maps

NOTE = "in-work-"  # beginning of the name of a worker's note of its job
MOST_IDLE_DEATHS = 3  # times that workers may die before they begin a job, in a row


@dataclass(frozen=True)
class MaskJob:
    """One image whose CAMs are on disk and whose mask is to be made.

    Attributes:
        image, maps, mask: the photo, its class maps, and the mask that is written.
        file_size: of the photo that the maps were made of, in bytes; None: not known.
        confidence: where the mask's confidence is written; None: nowhere.
    """

    id: str
    image: FilePlace
    maps: FilePlace
    mask: Path
    file_size: int | None = None
    confidence: Path | None = None


@dataclass(frozen=True)
class MaskStage:
    """What every mask of a run is made with; small, it travels with each job.

    Attributes:
        config: settings of the masks.
        has_background: see `Vocabulary`.
        palette: colours by label, (labels, 3) uint8 RGB.
        scratch: folder for temporary files on the masks' file system.
        device: where PAMR and the CRF on tensors run.
    """

    config: MaskConfig
    has_background: bool
    palette: np.ndarray
    scratch: Path
    device: str = "cpu"

    @property
    def crf_on_tensors(self) -> bool:
        """Whether masks are refined by the CRF that needs PyTorch."""
        return self.config.refiner == "crf" and crf_engine(self.config.crf, self.device) == "torch"

    @property
    def in_process(self) -> bool:
        """Whether masks are made in the model's process, whose device the refiner uses."""
        return self.config.refiner in ("pamr", "par", "sam") or (self.crf_on_tensors and not is_cpu(self.device))


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
        require_same_file(job.image, job.file_size)
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
    except (ImageError, MemoryError, cv2.error) as error:
        return MaskReport({}, time.perf_counter() - start, _one_line(job, error))
    except RuntimeError as error:  # of a refiner on tensors: an accelerator without memory, say
        if isinstance(error, TagclipError):
            raise
        return MaskReport({}, time.perf_counter() - start, _one_line(job, error))
    if job.confidence is not None:  # before the mask, so that a mask that is there has its confidence
        with atomic_file(job.confidence, stage.scratch) as file:
            file.write(encode_confidence(labels.confidence))
    with atomic_file(job.mask, stage.scratch) as file:
        file.write(encode_mask(labels.mask, stage.palette, stage.config.ignore_label))
    return MaskReport(count_labels(labels.mask), time.perf_counter() - start)


class MaskPool(Protocol):
    """Who makes the masks of a pipeline: `MaskWorkers` on this machine, or another engine."""

    def room(self) -> int:
        """How many jobs `submit` takes without waiting."""

    def submit(self, job: MaskJob) -> Iterator[tuple[MaskJob, MaskReport]]:
        """Adds a job, waiting for room; yields what has been finished meanwhile."""

    def collect(self) -> Iterator[tuple[MaskJob, MaskReport]]:
        """Yields what is done, without waiting."""

    def finish(self) -> Iterator[tuple[MaskJob, MaskReport]]:
        """Waits for all jobs, yielding each as it is done."""

    def close(self, *, cancel: bool = False) -> None:
        """Ends; with `cancel`, jobs that have not begun are dropped."""


class MaskWorkers:
    """A bounded queue of mask jobs before a few processes (a thread of this process for refiners on an accelerator).

    A worker that dies takes nothing with it but the photo that killed it: the photos that were in work are tried once
    more, each alone; one that ends its worker again is reported as failed; everything else is handed to new workers.

    Args:
        stage: settings.
        processes: number of workers.
        queue: most jobs that wait or run; `submit` blocks beyond it, which bounds memory and disk traffic.
        in_process: work in a thread here: for refiners that use the model's device.
    """

    def __init__(self, stage: MaskStage, processes: int, queue: int, *, in_process: bool = False):
        self.stage, self.processes, self.queue, self.in_process = stage, processes, max(queue, 1), in_process
        self._jobs: dict[Future[MaskReport], MaskJob] = {}
        self._finished: list[tuple[MaskJob, MaskReport]] = []
        self._idle_deaths = 0
        self._executor = self._start(processes)

    def _start(self, processes: int) -> Executor:
        if self.in_process:
            return ThreadPoolExecutor(max_workers=1)
        # Spawned, not forked: a fork of a process with PyTorch's threads (or a CUDA context) may hang.
        return ProcessPoolExecutor(
            max_workers=processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self.stage.crf_on_tensors,),
        )

    def _send(self, executor: Executor, job: MaskJob) -> Future[MaskReport]:
        with without_main():  # a worker may be spawned for it
            return executor.submit(_work, self.stage, job)

    def room(self) -> int:
        """How many jobs `submit` takes without waiting."""
        return self.queue - len(self._jobs)

    def submit(self, job: MaskJob) -> Iterator[tuple[MaskJob, MaskReport]]:
        """Adds a job, waiting for room; yields what has been finished meanwhile.

        Raises:
            RunError: a full disk, or workers that cannot even be started.
        """
        while self.room() <= 0:
            yield from self._collect(wait_for_one=True)
        try:
            self._jobs[self._send(self._executor, job)] = job
        except BrokenProcessPool:
            self._recover([job])
        yield from self._collect(wait_for_one=False)

    def finish(self) -> Iterator[tuple[MaskJob, MaskReport]]:
        """Waits for all jobs, yielding each as it is done."""
        while self._jobs or self._finished:
            yield from self._collect(wait_for_one=True)

    def collect(self) -> Iterator[tuple[MaskJob, MaskReport]]:
        """Yields what is done, without waiting."""
        yield from self._collect(wait_for_one=False)

    def _collect(self, *, wait_for_one: bool) -> Iterator[tuple[MaskJob, MaskReport]]:
        if self._jobs and wait_for_one and not self._finished:
            done, _ = wait(self._jobs, return_when=FIRST_COMPLETED)
        else:
            done = {future for future in self._jobs if future.done()}
        lost = []
        for future in done:
            job = self._jobs.pop(future)
            try:
                self._finished.append((job, future.result()))
                self._idle_deaths = 0
            except BrokenProcessPool:
                lost.append(job)
        if lost:
            self._recover(lost)
        finished, self._finished = self._finished, []
        yield from finished

    def _recover(self, lost: list[MaskJob]) -> None:
        """Starts new workers after one has died, and finds out which photo killed it."""
        waiting = {job.id: job for job in [*lost, *self._jobs.values()]}
        for future, job in self._jobs.items():  # finished before the pool broke
            if future.done() and not isinstance(future.exception(), BrokenProcessPool):
                self._finished.append((job, future.result()))
                del waiting[job.id]
        self._jobs.clear()
        _end(self._executor)
        suspects = [waiting.pop(name) for name in _ids_in_work(self.stage.scratch) if name in waiting]
        self._idle_deaths += not suspects
        if self._idle_deaths > MOST_IDLE_DEATHS:
            raise RunError(
                f"mask workers are ended from outside before they begin ({self._idle_deaths} times); use fewer "
                "--mask-workers, or free memory, and run the same command again"
            )
        for job in suspects:
            self._finished.append((job, self._alone(job)))
        self._executor = self._start(self.processes)
        for job in waiting.values():
            self._jobs[self._send(self._executor, job)] = job

    def _alone(self, job: MaskJob) -> MaskReport:
        executor = self._start(1)
        start = time.perf_counter()
        try:
            return self._send(executor, job).result()
        except BrokenProcessPool:
            _ids_in_work(self.stage.scratch)
            problem = (
                f"{job.image}: its mask worker was ended from outside twice, the second time alone; most likely for "
                "want of memory: set a smaller masks.max_refine_side"
            )
            return MaskReport({}, time.perf_counter() - start, problem)
        finally:
            executor.shutdown(wait=True)

    def close(self, *, cancel: bool = False) -> None:
        """Ends the workers; with `cancel`, jobs that have not begun are dropped."""
        _end(self._executor, cancel=cancel)


def _end(executor: Executor, *, cancel: bool = False) -> None:
    """Shuts down, without waiting for ever for a worker that was being started when another one died.

    The pool ends all workers that it knows when one dies, and then waits for those that it knows by then: one that came
    between waits for a lock which the dead one held.
    """
    if isinstance(executor, ProcessPoolExecutor) and executor._broken:
        for process in list((executor._processes or {}).values()):
            process.kill()
    executor.shutdown(wait=True, cancel_futures=cancel)


def _one_line(job: MaskJob, error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"{job.image}: no memory for its mask; use fewer --mask-workers or a smaller masks.max_refine_side"
    text = " ".join(str(error).split())
    return text if isinstance(error, ImageError) else f"{job.image}: {type(error).__name__}: {text}"


def _ids_in_work(scratch: Path) -> list[str]:
    """Ids of the jobs that workers were at when they ended; their notes and half-written masks are removed."""
    found = []
    for note in sorted(scratch.glob(f"{NOTE}*")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.append(note.read_text(encoding="utf-8"))
        process = note.name.removeprefix(NOTE).partition("-")[0]
        for unfinished in [*scratch.glob(f"{process}-*"), note]:  # of `atomic_file` in that process
            unfinished.unlink(missing_ok=True)
    return found


def _work(stage: MaskStage, job: MaskJob) -> MaskReport:
    """`make_mask`, with a note of the job on disk for as long as it lasts: a worker that is killed cannot tell."""
    note = stage.scratch / f"{NOTE}{os.getpid()}-{threading.get_ident()}"
    with contextlib.suppress(OSError):  # a full disk is reported by the mask itself
        note.write_text(job.id, encoding="utf-8")
    try:
        return make_mask(stage, job)
    except RunError as error:
        # Without its cause chain: tracebacks of another process say nothing to a user.
        raise RunError(str(error)) from None
    finally:
        note.unlink(missing_ok=True)


def _start_worker(with_torch: bool) -> None:
    cv2.setNumThreads(1)
    if with_torch:
        import torch

        torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    parent = multiprocessing.parent_process()
    # A killed parent cannot say goodbye, and its queue's pipe stays open in the other workers.
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)

"""One pass over the images: decode threads -> one trunk for tags and CAMs -> mask workers, all at the same time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from tagclip.clip import FrozenCLIP
from tagclip.errors import ImageError
from tagclip.tag_files import TagCorrection, TagRecord, parse_tag_line, tag_line
from tagclip.tagger import ImageTagger
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.files.concurrency import bounded_map
from wsss.files.map_files import StoredMaps
from wsss.files.mask_files import count_labels, read_mask
from wsss.files.run_folder import RunFolder
from wsss.maps.class_maps import ClassMaps
from wsss.maps.source import ClassMapSource
from wsss.masks.crf import settle_engine
from wsss.pipeline.batch import BatchOutcome, BatchRunner
from wsss.pipeline.changes import WantedTags
from wsss.pipeline.decoding import DecodedBatch, decode_batches
from wsss.pipeline.mask_workers import MaskJob, MaskPool, MaskReport, MaskStage, MaskWorkers
from wsss.pipeline.planning import Plan, PlannedImage, Todo, survey
from wsss.pipeline.shared_pass import SharedPass
from wsss.pipeline.summary import StageTimes, count_run


@dataclass(frozen=True)
class WorkShare:
    """How the work is shared out. Nothing in the results depends on it.

    Attributes:
        decoders: decoding threads.
        mask_workers: processes that make masks.
        mask_queue: jobs that may wait for a mask worker, for each worker.
        raw_cams: keep the maps before the affinity too (for looking at them).
        save_confidence: write the confidence of each mask, too.
    """

    decoders: int = 2
    mask_workers: int = 2
    mask_queue: int = 8
    raw_cams: bool = True
    save_confidence: bool = False


MakePool = Callable[[MaskStage, WorkShare], MaskPool]


def pool_of_processes(stage: MaskStage, work: WorkShare) -> MaskPool:
    """Mask workers on this machine."""
    queue = work.mask_workers * work.mask_queue
    return MaskWorkers(stage, work.mask_workers, queue, in_process=stage.in_process)


class Pipeline:
    """Tags (from the model or given), CAMs and masks of a plan's images, into a run folder.

    Args:
        run: open run folder.
        clip: the frozen model; None where nothing is left but masks of class maps that are there.
        vocabulary: classes.
        maps: makes the CAMs; None without a model.
        config: settings of CAMs and masks.
        tagger: makes the tags, in the same trunk pass; or
        tags: tags from a file by image id; exactly one of the two, unless there is no model.
        wanted: the tags that images shall have in the end: corrections have a say in them. None: those of tagger or
            file.
        device: where masks are refined without a model.
        work: how the work is shared out.
        pool: makes the pool of mask workers.
        progress: called with this pipeline after every finished step.
    """

    def __init__(
        self,
        run: RunFolder,
        clip: FrozenCLIP | None,
        vocabulary: Vocabulary,
        maps: ClassMapSource | None,
        config: MaskConfig,
        *,
        tagger: ImageTagger | None = None,
        tags: Mapping[str, TagRecord] | None = None,
        wanted: WantedTags | None = None,
        device: str = "cpu",
        work: WorkShare | None = None,
        pool: MakePool = pool_of_processes,
        progress: Callable[[Pipeline], None] = lambda pipeline: None,
    ):
        if clip is not None and (tagger is None) == (tags is None):
            raise ValueError("give a tagger or tags")
        self.run, self.clip, self.vocabulary = run, clip, vocabulary
        self.config = config = config.for_labels(vocabulary.label_count)
        self.tags, self.wanted, self.work, self.progress = tags, wanted, work or WorkShare(), progress
        self.pool = pool
        device = device if clip is None else str(clip.device)
        self.stage = MaskStage(
            settle_engine(config, device), vocabulary.has_background, vocabulary.label_palette, run.scratch, device
        )
        self.times = StageTimes()
        self.batches: BatchRunner[tuple[dict, ClassMaps]] | None = None
        if clip is not None and maps is not None:
            self.batches = BatchRunner(clip, self._infer)
            self.shared = SharedPass(maps, tagger, times=self.times)
        self.failed = 0

    def execute(self, plan: Plan, todo: Todo) -> None:
        """Does what is left. Ends with the run folder complete.

        Raises:
            RunError: a full disk, or a model whose scores are never finite; the run can be resumed.
        """
        start = time.perf_counter()
        for name in todo.damaged:
            self.run.log(f"the class maps of {name} were damaged; they are made again")
        for file, error in plan.unreadable:
            if file.id not in self.run.failures:
                self._fail(file.id, file.recorded, "decode", error)
        with ThreadPoolExecutor(max_workers=self.work.decoders) as decoders:
            self._count_earlier_masks(plan, todo, decoders)
            workers = self.pool(self.stage, self.work)
            try:
                self._feed(todo, decoders, workers)
                if self.batches is not None:
                    self.batches.finish()
                workers.close()
            except BaseException:
                workers.close(cancel=True)
                raise
        self.times.wall = time.perf_counter() - start

    def _feed(self, todo: Todo, decoders: ThreadPoolExecutor, workers: MaskPool) -> None:
        backlog, done = deque(todo.masks), {*todo.masks_there, *todo.outside}
        writing: _Writing | None = None
        with ThreadPoolExecutor(max_workers=1) as writer:
            for decoded in self._decoded(todo, decoders):
                self.times.add("decode", decoded.seconds, len(decoded.images) + len(decoded.failures))
                for image, error in decoded.failures:
                    self._fail(image.id, image.file.recorded, "decode", error)
                while backlog and workers.room() > 0:
                    self._submit(workers, backlog.popleft())
                # The model does the next batch while the maps of the last one are compressed and written.
                begun = self._model(decoded, writer) if decoded.images else None
                self._written(writing, workers, done)
                writing = begun
            self._written(writing, workers, done)
        for image in backlog:
            self._submit(workers, image)
        self._note(workers.finish())

    def _decoded(self, todo: Todo, decoders: ThreadPoolExecutor) -> Iterator[DecodedBatch]:
        if not todo.batches:
            return iter(())
        if self.clip is None:
            raise ValueError("images are left that need the model")
        return decode_batches(todo.batches, decoders, self.clip, self.config.image)

    def _model(self, decoded: DecodedBatch, writer: Executor) -> _Writing:
        """Trunk, tags and class maps of a batch; the maps are on their way to the disk."""
        assert self.batches is not None  # there is a batch, so there is a model
        outcome = self.batches(decoded.images, decoded.inputs)
        return _Writing(decoded.images, outcome, writer.submit(self._write_maps, outcome))

    def _write_maps(self, outcome: BatchOutcome[tuple[dict, ClassMaps]]) -> float:
        """Seconds that it took."""
        start = time.perf_counter()
        for image, (_, found) in outcome.done:
            stored = StoredMaps(
                found.maps.astype(self.config.storage_dtype),
                np.asarray(found.indices, np.int32),
                (image.size.height, image.size.width),
                found.raw.astype(self.config.storage_dtype) if self.work.raw_cams else None,
            )
            with self.run.file(self.run.maps_path(image.id)) as file:
                stored.write(file)
        return time.perf_counter() - start

    def _written(self, writing: _Writing | None, workers: MaskPool, done: set[str]) -> None:
        """Waits for the maps of a batch, then records its tags, and what failed, and has its masks made."""
        if writing is not None:
            seconds = writing.maps.result()
            start = time.perf_counter()
            self.run.tags.append([line for _, (line, _) in writing.outcome.done])
            for image, error in writing.outcome.failed:
                self._fail(image.id, image.file.recorded, "tags", error)
            self.times.add("write", seconds + time.perf_counter() - start, len(writing.images))
            for image in writing.images:
                if image.id not in done and image.id not in self.run.failures:
                    self._submit(workers, image)
        self._note(workers.collect())
        self.progress(self)

    def _infer(self, batch: Sequence[PlannedImage], images: Tensor) -> list[tuple[dict, ClassMaps] | None]:
        """(line of tags.jsonl, class maps) of each image, None for one whose scores or maps are not finite."""
        records = [self._known(image) for image in batch]

        def decide(place: int, indices: Sequence[int], scores: np.ndarray | None) -> Sequence[int]:
            known, record = records[place], batch[place].tagged(indices, scores)
            record = replace(record, correction=_correction(known))
            if self.wanted is not None and (known is not None or not self.wanted.is_rule):
                record = self.wanted.of(record)  # of a tagger by its own rule, it has these tags already
            records[place] = record
            return record.indices

        results = self.shared(images, list(records), decide)
        return [
            None if one is None or record is None else (tag_line(record, self.vocabulary), one.maps)
            for record, one in zip(records, results, strict=True)
        ]

    def _known(self, image: PlannedImage) -> TagRecord | None:
        """Tags of the run itself or from the file; None where the tagger makes them."""
        if image.id in self.run.tags:
            return parse_tag_line(self.run.tags[image.id], self.vocabulary, f"image {image.id!r}")
        return None if self.tags is None else self.tags[image.id]

    def _submit(self, workers: MaskPool, image: PlannedImage) -> None:
        run, name = self.run, image.id
        confidence = run.confidence_path(name) if self.work.save_confidence else None
        job = MaskJob(name, image.file.path, run.place("cams", name), run.mask_path(name), image.file_size, confidence)
        self._note(workers.submit(job))

    def _note(self, finished: Iterator[tuple[MaskJob, MaskReport]]) -> None:
        for job, report in finished:
            self.times.add("masks", report.seconds, 1)
            if report.problem is not None:
                self._fail(job.id, self.run.tags[job.id]["path"], "masks", report.problem)
            else:
                self.run.coverage.append([_coverage_line(job.id, report.counts)])
            self.progress(self)

    def _count_earlier_masks(self, plan: Plan, todo: Todo, threads: ThreadPoolExecutor) -> None:
        """Masks whose worker ended after writing and before we took note; damaged ones are made again."""

        def count(name: str) -> dict[int, int] | None:
            try:
                return count_labels(read_mask(self.run.place("masks", name)))
            except ImageError:
                return None

        damaged = set()
        unknown = sorted(todo.masks_there - self.run.coverage.ids())
        for name, counts in bounded_map(threads, count, unknown, 64):
            if counts is None:
                damaged.add(name)
                self.run.log(f"the mask of {name} was damaged; it is made again")
            else:
                self.run.coverage.append([_coverage_line(name, counts)])
        todo.masks_there -= damaged
        waiting = {image.id for batch in todo.batches for image in batch}
        todo.masks.extend(image for image in plan.images if image.id in damaged - waiting)

    def _fail(self, image_id: str, path: str, stage: str, error: ImageError | str) -> None:
        self.failed += 1
        self.run.fail(image_id, path, stage, error)


@dataclass(frozen=True)
class _Writing:
    """A batch that the model has done: its images, what became of them, and the seconds of the writer to come."""

    images: Sequence[PlannedImage]
    outcome: BatchOutcome[tuple[dict, ClassMaps]]
    maps: Future[float]


def _correction(record: TagRecord | None) -> TagCorrection | None:
    return None if record is None else record.correction


def _coverage_line(image_id: str, counts: Mapping[int, int]) -> dict:
    return {"id": image_id, "pixels": {str(label): pixels for label, pixels in sorted(counts.items())}}


def run_pipeline(pipeline: Pipeline, plan: Plan, todo: Todo | None = None) -> dict[str, Any]:
    """Everything that is left of a plan, up to a complete run folder.

    Args:
        todo: of `survey`, if it was called already.

    Returns:
        Counts of the run, see `count_run`.
    """
    run = pipeline.run
    pipeline.execute(plan, todo or survey(plan, run, pipeline.config.image))
    run.set_aside(set(plan.present) - run.rejected_ids(plan.present))
    counts = count_run(run, plan, pipeline.vocabulary, pipeline.config.ignore_label)
    run.complete(plan.order, counts, without_photo=set(plan.absent))
    return counts

"""Which thumbnails are there already, and making the others in processes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2

from tagclip.errors import RunError
from tagclip.text_files import parse_json
from wsss.files.concurrency import bounded_map
from wsss.files.provenance import write_record
from wsss.files.spawning import without_main
from wsss.review.thumbnails import (
    PER_FOLDER,
    OverlayFigures,
    ThumbnailJob,
    ThumbnailReport,
    ThumbnailStage,
    make_thumbnail,
    thumbnail_path,
)

INDEX_FILE = "index.json"
INDEX_FORMAT = 1
SAVE_EVERY = 500  # thumbnails after which the index is written; a killed command remakes at most so many
JOBS_PER_PROCESS = 24  # fewer are made sooner here than a process starts
SUFFIXES = (".webp", ".js", ".full.js")
Stamp = tuple[int, int] | None


@dataclass(frozen=True)
class ThumbnailEntry:
    """What is known of the files of one image.

    Attributes:
        number: of its files.
        photo: size and time of change of the photo that the thumbnail was made of; None: there is no thumbnail.
        overlay: the same of mask and class maps, and the order of the tags.
        figures: of the overlay.
        problem: why there is no thumbnail.
        turned: the photo's EXIF orientation turns it.
    """

    number: int
    photo: Stamp = None
    overlay: str | None = None
    figures: OverlayFigures = field(default_factory=OverlayFigures)
    problem: str | None = None
    turned: bool = False


@dataclass(frozen=True)
class ReviewImage:
    """The files of one image of a run: None where there is none (any more)."""

    id: str
    photo: Path | None
    mask: Path | None
    maps: Path | None
    classes: tuple[int, ...] = ()
    confidence: Path | None = None


class ThumbnailStore:
    """The folder `review/thumbs`.

    Args:
        stage: how thumbnails are made. A folder that was made otherwise is made anew.
    """

    def __init__(self, stage: ThumbnailStage):
        self.stage = stage
        made_with = [
            INDEX_FORMAT, asdict(stage.config), stage.apply_exif, stage.ignored, stage.has_background,
            stage.palette.tolist(),
        ]  # fmt: skip
        self.made_with = hashlib.sha256(json.dumps(made_with).encode()).hexdigest()
        self.entries = self._read()

    def _read(self) -> dict[str, ThumbnailEntry]:
        try:
            content = parse_json((self.stage.folder / INDEX_FILE).read_text(encoding="utf-8"))
            if content["made_with"] != self.made_with:
                return {}
            return {name: _entry(values) for name, values in content["images"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged: made anew
            return {}

    def plan(self, images: Sequence[ReviewImage], *, overwrite: bool = False) -> list[ThumbnailJob]:
        """What has to be made, in the order of the images; numbers are given to new ones."""
        if overwrite:
            self.entries = {}
        there = {image.id for image in images}
        self.entries = {name: entry for name, entry in self.entries.items() if name in there}
        taken = {entry.number for entry in self.entries.values()}
        free = (number for number in range(len(images) + len(taken) + 1) if number not in taken)
        jobs = []
        for image in images:
            entry = self.entries.get(image.id) or ThumbnailEntry(next(free))
            self.entries[image.id] = entry
            with_photo = image.photo is not None and (
                _stamp(image.photo) != entry.photo or not self._has(entry.number, ".webp")
            )
            with_overlay = _overlay_stamp(image) != entry.overlay or not self._overlay_is_there(entry)
            if with_photo or with_overlay:
                jobs.append(ThumbnailJob(
                    image.id, entry.number, image.photo, image.mask, image.maps, image.classes, with_photo,
                    with_overlay, image.confidence,
                ))  # fmt: skip
        return jobs

    def _has(self, number: int, suffix: str) -> bool:
        return thumbnail_path(self.stage.folder, number, suffix).is_file()

    def _overlay_is_there(self, entry: ThumbnailEntry) -> bool:
        figures = entry.figures
        small = not (figures.has_mask or figures.has_maps) or self._has(entry.number, ".js")
        return small and (not figures.has_full or self._has(entry.number, ".full.js"))

    def make(self, jobs: Sequence[ThumbnailJob], workers: int, progress: Callable[[int], object]) -> None:
        """Makes thumbnails; what a killed call has made is kept.

        Args:
            workers: processes. progress: called with 1 for each image.

        Raises:
            RunError: full disk, or workers that were ended from outside.
        """
        shutil.rmtree(self.stage.scratch, ignore_errors=True)
        self.stage.scratch.mkdir(parents=True, exist_ok=True)
        try:
            for done, (job, report) in enumerate(self._reports(jobs, workers), start=1):
                self._note(job, report)
                progress(1)
                if done % SAVE_EVERY == 0:
                    self.save()
            self.save()
        finally:
            shutil.rmtree(self.stage.scratch, ignore_errors=True)
        self._remove_strangers()

    def _reports(self, jobs: Sequence[ThumbnailJob], workers: int) -> Any:
        processes = min(workers, len(jobs) // JOBS_PER_PROCESS)
        if processes < 2:
            for job in jobs:
                yield job, make_thumbnail(self.stage, job)
            return
        context = multiprocessing.get_context("spawn")
        with without_main(), ProcessPoolExecutor(processes, context, _start_worker, (self.stage,)) as executor:
            try:
                yield from bounded_map(executor, _work, jobs, 8 * processes)
            except BrokenProcessPool:
                raise RunError(
                    f"{self.stage.folder}: a worker that makes thumbnails was ended from outside, most likely for want "
                    "of memory; use fewer --workers and run the same command again, it keeps what is done"
                ) from None

    def _note(self, job: ThumbnailJob, report: ThumbnailReport) -> None:
        entry = self.entries[job.id]
        if job.with_photo:
            there = report.with_photo
            entry = replace(
                entry, photo=_stamp(job.photo) if there else None, problem=report.problem, turned=report.turned
            )
            if not there:
                thumbnail_path(self.stage.folder, job.number, ".webp").unlink(missing_ok=True)
        if report.figures is not None:
            image = ReviewImage(job.id, job.photo, job.mask, job.maps, job.classes, job.confidence)
            entry = replace(entry, overlay=_overlay_stamp(image), figures=report.figures)
        self.entries[job.id] = entry

    def save(self) -> None:
        """Writes the index."""
        write_record(
            self.stage.folder / INDEX_FILE,
            {"made_with": self.made_with, "images": {name: _values(entry) for name, entry in self.entries.items()}},
        )

    def _remove_strangers(self) -> None:
        """Removes files of images that have left the run."""
        taken = {entry.number for entry in self.entries.values()}
        for path in self.stage.folder.glob("[0-9]*/*"):
            stem, _, suffix = path.name.partition(".")
            is_ours = f".{suffix}" in SUFFIXES and stem.isdigit() and path.parent.name.isdigit()
            if is_ours and int(path.parent.name) * PER_FOLDER + int(stem) not in taken:
                path.unlink(missing_ok=True)


def _start_worker(stage: ThumbnailStage) -> None:
    global _stage
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    _stage = stage


_stage: ThumbnailStage | None = None  # of a worker process, set once when it starts


def _work(job: ThumbnailJob) -> ThumbnailReport:
    assert _stage is not None
    try:
        return make_thumbnail(_stage, job)
    except RunError as error:  # without the cause chain of another process
        raise RunError(str(error)) from None


def _stamp(path: Path | None) -> Stamp:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _overlay_stamp(image: ReviewImage) -> str:
    confidence = [] if image.confidence is None else [_stamp(image.confidence)]
    return json.dumps([_stamp(image.mask), _stamp(image.maps), image.classes if image.maps else (), *confidence])


def _values(entry: ThumbnailEntry) -> dict[str, Any]:
    return {key: value for key, value in asdict(entry).items() if value is not None and value is not False}


def _entry(values: Mapping[str, Any]) -> ThumbnailEntry:
    figures = values["figures"]
    return ThumbnailEntry(
        int(values["number"]),
        None if values.get("photo") is None else (int(values["photo"][0]), int(values["photo"][1])),
        values.get("overlay"),
        OverlayFigures(
            tuple((int(label), int(share)) for label, share in figures["shares"]),
            tuple((int(first), int(second), int(overlap)) for first, second, overlap in figures["rivals"]),
            bool(figures["has_mask"]), bool(figures["has_maps"]), bool(figures["has_full"]),
            None if figures.get("confidence") is None else int(figures["confidence"]),
        ),
        values.get("problem"),
        bool(values.get("turned", False)),
    )  # fmt: skip

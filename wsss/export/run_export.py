"""`export_run`: a run folder in another tool's format, image by image, with bounded memory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tagclip.errors import ImageError, RunError, UsageError
from tagclip.images import Size
from tagclip.stored_files import FilePlace
from tagclip.tag_files import TagRecord
from wsss.export.export_folder import ExportFolder, MergeCounts, check_target
from wsss.export.export_options import ExportOptions
from wsss.export.export_plan import (
    KNOWN,
    ExportPlan,
    ImagePlace,
    added_tags,
    plain_path,
    plain_text,
    plan_export,
    record_state,
    sizes_on_disk,
    sure_tags,
)
from wsss.export.format_writer import PRODUCER, ExportJob, ExportSample, FormatWriter
from wsss.export.formats import find_format
from wsss.export.photo_copies import PhotoCopier, PhotoPlan, check_size
from wsss.files.concurrency import bounded_map
from wsss.files.mask_files import read_mask
from wsss.files.photos import PhotoLocator
from wsss.files.result_shards import results_there
from wsss.files.run_files import read_manifest
from wsss.files.run_reader import RunReader

EXPORTS = "export"  # folder of a run
READERS, IN_FLIGHT = 2, 8

logger = logging.getLogger(__name__)


@dataclass
class ExportSummary:
    """What an export did, or, of a dry run, would do.

    Attributes:
        format: its name. out: where it is.
        images: exported. splits: how many are in each list.
        counts: what the format counted: annotations, holes, small parts.
        photos: by what was done to them: copied, linked, upright, png, jpeg, named.
        left_out: images by why they are not exported.
        failed: images that could not be exported: {"id", "message"}.
        notes: what was lost or changed, one sentence each.
        merged: files added, combined and left alone, where a data set was added to.
        megabytes: of photos and masks, of a dry run.
    """

    format: str
    out: Path
    images: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    photos: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    failed: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    merged: dict[str, int] | None = None
    megabytes: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "out": str(self.out)}


def export_run(
    run: str | Path,
    format: str,
    *,
    out: str | Path | None = None,
    options: ExportOptions | None = None,
    image_root: str | Path | None = None,
    merge_into: str | Path | None = None,
    overwrite: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
    **settings: Any,
) -> ExportSummary:
    """Exports a finished run.

    Args:
        run: run folder, as `label_folder` or `tagclip run` wrote it.
        format: a name of `wsss.export.FORMATS`: "voc", "coco", "yolo", ...
        out: folder of the export; None: `RUN/export/FORMAT`. It appears whole or not at all.
        options: settings of the export; `settings` are fields of it, instead.
        image_root: where the photos are now; None: where they were when the run was made.
        merge_into: add the images that it does not have yet to this data set of the same format.
        overwrite: replace an earlier export.
        strict: an image that cannot be exported is an error.
        dry_run: write nothing.
        progress: called with the number of images that are done, and of all.

    Raises:
        UsageError: no run, an unknown format or setting, a folder that holds something, photos that are not there, or
            nothing to export.
        RequirementError: a package that the format needs is missing.
        RunError: a run that is not complete, a full disk, or, with `strict`, a failed image.

    Example:
        >>> export_run("runs/mine", "coco", split="train=0.9,val=0.1").images  # doctest: +SKIP
    """
    if unknown := [name for name in settings if name not in {one.name for one in fields(ExportOptions)}]:
        raise UsageError(f"export_run: {unknown[0]!r} is not a setting of an export")
    options = options if options is not None else ExportOptions(**settings)
    if merge_into is not None and (out is not None or overwrite):
        raise UsageError("--merge-into names the folder and replaces nothing: leave --out and --overwrite out")
    known = find_format(format)
    writer_class = known.load()
    reader = RunReader(run)
    target = Path(merge_into or out or reader.root / EXPORTS / format)
    export = _Export(reader, format, writer_class, options, target, image_root, merge_into is not None)
    return export.dry() if dry_run else export.execute(overwrite, strict, progress)


class _Export:
    """One call of `export_run`."""

    def __init__(
        self,
        run: RunReader,
        format: str,
        writer_class: type[FormatWriter],
        options: ExportOptions,
        target: Path,
        image_root: str | Path | None,
        merge: bool,
    ):
        self.run, self.format, self.writer_class, self.options = run, format, writer_class, options
        self.target, self.merge = target, merge
        manifest = read_manifest(run.root)
        if manifest is None:
            raise UsageError(f"--run {run.root}: no manifest.json there; give a run folder")
        self.run_id = manifest.get("id")
        self.vocabulary = run.vocabulary
        self.apply_exif = bool(manifest.get("masks", {}).get("image", {}).get("apply_exif", True))
        self.locator = PhotoLocator.of_run(run.root, image_root)
        if writer_class.needs_masks and not results_there(run.root / "masks"):
            raise UsageError(
                f"--run {run.root}: has no masks, which --format {format} needs; `tagclip mask` makes them"
            )
        if merge and not target.is_dir():
            raise UsageError(f"--merge-into {target}: no such folder")
        mode = options.photos if writer_class.wants_photos else "none"
        self.copier = PhotoCopier(mode, apply_exif=self.apply_exif, suffix=writer_class.photo_suffix)
        self.failed: list[dict[str, str]] = []

    def plan(self) -> ExportPlan:
        """The images of the export, before a data set that it is merged into is looked at."""
        return plan_export(
            self.run, self.options, self.writer_class.default_split, needs_masks=self.writer_class.needs_masks
        )

    def dry(self) -> ExportSummary:
        """What would be exported."""
        plan, photos = self.plan(), {}
        for record in self.run.records():
            if record.id in plan.images:
                photos[record.id] = self._photo(record)
        self._require_images(plan)
        summary = self._summary(plan, len(plan.images))
        if self.merge:
            summary.notes.append("what the data set has already is only looked at when it is merged into")
        if self.copier.mode in ("symlink", "hardlink", "none") and not self.writer_class.holds_photos:
            photos = dict.fromkeys(photos)
        summary.megabytes = round(sizes_on_disk(self.run, photos) / 1e6, 1)
        return summary

    def execute(self, overwrite: bool, strict: bool, progress: Callable[[int, int], object]) -> ExportSummary:
        """Writes it."""
        if not self.merge:
            check_target(self.target, overwrite=overwrite)
        plan = self.plan()
        with ExportFolder.open(self.target) as folder:
            job = ExportJob(
                self.vocabulary, self.options, folder, plan.splits, self.run.root, self._photo_root(), self.merge
            )
            _ = job.stuff  # a wrong name is told before anything is written
            writer = self.writer_class(job)
            if self.merge:
                plan.without(writer.known(self.target), writer.known_by_id)
                if not plan.images and plan.left_out[KNOWN]:
                    return self._nothing_new(plan)
            self._require_images(plan)
            done: Counter[str] = Counter()
            for count, sample in enumerate(self._samples(plan, folder, writer), start=1):
                if sample is not None and self._add(writer, sample, folder):
                    done[sample.split] += 1
                progress(count, len(plan.images))
            if self.failed and (strict or not done):
                raise RunError(
                    f"{len(self.failed)} of {len(plan.images)} images could not be exported; first: "
                    f"{self.failed[0]['message']}"
                )
            writer.finish()
            summary = self._summary(plan, done.total())
            summary.splits = {split: done[split] for split in plan.splits}
            summary.counts, summary.photos = dict(writer.counts), dict(self.copier.counts)
            summary.notes += [*self._photo_notes(), *writer.notes()]
            record = {"made_by": PRODUCER, "format": self.format, "run": self.run.root.absolute().name,
                      "run_id": self.run_id, "options": asdict(self.options), "images": summary.images}  # fmt: skip
            if self.merge:
                counts: MergeCounts = folder.merge(record, writer.combine)
                summary.merged = asdict(counts)
            else:
                strangers = folder.publish(record, overwrite=overwrite)
                if strangers:
                    summary.notes.append(f"{strangers} files that no export wrote were left alone")
        return summary

    def _nothing_new(self, plan: ExportPlan) -> ExportSummary:
        summary = self._summary(plan, 0)
        summary.merged = asdict(MergeCounts())
        return summary

    def _photo_root(self) -> Path | str | None:
        root = self.locator.root
        return " ".join(root) if isinstance(root, tuple) else root

    def _require_images(self, plan: ExportPlan) -> None:
        if not plan.images:
            reasons = ", ".join(f"{count} {why}" for why, count in plan.left_out.items())
            raise UsageError(f"--run {self.run.root}: no image to export ({reasons or 'the run has none'})")

    def _summary(self, plan: ExportPlan, images: int) -> ExportSummary:
        splits = Counter(one.split for one in plan.images.values())
        summary = ExportSummary(self.format, self.target, images, {name: splits[name] for name in plan.splits})
        summary.left_out, summary.failed = dict(plan.left_out), self.failed
        if plan.escaped:
            summary.notes.append(f"names that lists cannot hold, written with percent signs: {plan.escaped}")
        unused = [
            name
            for name in ("instances", "stuff", "polygons", "ignored", "bom")
            if name not in self.writer_class.used and getattr(self.options, name) != getattr(ExportOptions(), name)
        ]
        summary.notes += [f"format {self.format} does not use the setting {name}" for name in unused]
        return summary

    def _photo_notes(self) -> list[str]:
        counts, mode = self.copier.counts, self.copier.mode
        linked = f" (copies: a {mode} of them would show something else)" if mode in ("symlink", "hardlink") else ""
        notes = []
        if mode == "none" and self.writer_class.wants_photos and not self.writer_class.holds_photos:
            notes.append("the photos are not in the export: its README.md says where they are")
        if counts["upright"]:
            how = (
                "turned upright and encoded anew" if self.apply_exif else "encoded anew without their EXIF orientation"
            )
            notes.append(f"{_photos(counts['upright'])} with an EXIF orientation: {how}, quality kept{linked}")
        if counts["png"]:
            notes.append(f"{_photos(counts['png'])} in formats that many tools do not read: now PNG{linked}")
        if counts["jpeg"]:
            notes.append(f"{_photos(counts['jpeg'])} now JPEG (quality 95), as the format wants one suffix{linked}")
        if counts["turned"]:
            notes.append(
                f"{_photos(counts['turned'])} turned by EXIF, which many trainers do not look at; masks are upright: "
                "export with copies of the photos"
            )
        return notes

    def _samples(self, plan: ExportPlan, folder: ExportFolder, writer: FormatWriter) -> Iterator[ExportSample | None]:
        def prepare(record: TagRecord) -> ExportSample | ImageError:
            try:
                return self._prepare(record, plan.images[record.id], folder, writer)
            except ImageError as error:
                return error

        chosen = (record for record in self.run.records() if record.id in plan.images)
        with ThreadPoolExecutor(READERS) as executor:
            for record, result in bounded_map(executor, prepare, chosen, IN_FLIGHT):
                if isinstance(result, ImageError):
                    self._fail(record.id, result)
                    yield None
                else:
                    yield result

    def _add(self, writer: FormatWriter, sample: ExportSample, folder: ExportFolder) -> bool:
        try:
            writer.add(sample)
        except ImageError as error:
            if self.copier.mode != "none" and not writer.holds_photos:
                (folder.root / writer.image_path(sample)).unlink(missing_ok=True)
            self._fail(sample.id, error)
            return False
        return True

    def _fail(self, image_id: str, error: ImageError) -> None:
        self.failed.append({"id": image_id, "message": str(error)})
        logger.warning("%s: %s", image_id, error)

    def _photo(self, record: TagRecord) -> FilePlace | None:
        """The photo of a record; None where it is not needed and not there.

        Raises:
            UsageError: it is needed and not there.
        """
        try:
            return self.locator.find(record.id, record.path)
        except UsageError:
            if self.copier.mode != "none":
                raise
            return None

    def _prepare(
        self, record: TagRecord, planned: ImagePlace, folder: ExportFolder, writer: FormatWriter
    ) -> ExportSample:
        mask_path, mask = self.run.place("masks", record.id), None
        if writer.needs_masks or mask_path.is_file():
            mask = self._mask(record, mask_path)
        photo, photo_plan, file_name = self._photo(record), PhotoPlan(""), self._recorded_name(record)
        if photo is not None and writer.wants_photos:
            shape = mask.shape if mask is not None else None
            if shape is not None:
                check_size(photo, shape[0], shape[1], self.apply_exif)
            photo_plan = self.copier.plan(photo)
            if self.copier.mode != "none":
                file_name = planned.name + photo_plan.suffix
            elif photo_plan.change == "upright":
                self.copier.count("turned")
        size = Size(*mask.shape) if mask is not None else Size(*(record.size or (0, 0)))
        confidence = self._confidence(record.id, size)
        tags, mask = self._sure(record, mask, confidence)
        note = "" if record.correction is None else plain_text(record.correction.note)
        sample = ExportSample(
            record.id, planned.name, file_name, planned.number, planned.split, size, tags, record.scores, mask,
            confidence, record_state(record), note, photo,
        )  # fmt: skip
        if photo is None or not writer.wants_photos or self.copier.mode == "none":
            return sample
        if writer.holds_photos:
            content = self.copier.content(photo, photo_plan)
            return ExportSample(**{**sample.__dict__, "content": content})
        self.copier.place(photo, folder.root / writer.image_path(sample), photo_plan)
        return sample

    def _recorded_name(self, record: TagRecord) -> str:
        """The photo's path below the image root, or its absolute one, for exports without photos."""
        recorded = plain_path(record.path or record.id)
        if self.locator.moved and PurePosixPath(recorded).is_absolute():
            return record.id + PurePosixPath(recorded).suffix
        return recorded

    def _mask(self, record: TagRecord, path: FilePlace) -> np.ndarray:
        mask = read_mask(path)
        if record.size is not None and mask.shape != record.size:
            height, width = record.size
            raise ImageError(
                f"{path}: {mask.shape[1]} x {mask.shape[0]} pixels, its photo {width} x {height}; make the mask again"
            )
        highest = self.vocabulary.label_count
        ignored = 255 if mask.dtype == np.uint8 else 65535
        if (strange := mask[(mask >= highest) & (mask != ignored)]).size:
            raise ImageError(f"{path}: value {int(strange[0])} is no label of the run's {highest}; make the mask again")
        return mask

    def _confidence(self, image_id: str, size: Size) -> np.ndarray | None:
        path = self.run.place("confidence", image_id)
        if not path.is_file():
            return None
        values = self.run.confidence(image_id)
        if values.shape != (size.height, size.width):
            raise ImageError(f"{path}: not the size of its mask; make it again")
        return values

    def _sure(
        self, record: TagRecord, mask: np.ndarray | None, confidence: np.ndarray | None
    ) -> tuple[tuple[int, ...], np.ndarray | None]:
        """Tags and mask without the classes that are less sure than the options want; their pixels become ignored."""
        least = self.options.min_confidence
        tags = sure_tags(record, least)
        if least is None or mask is None:
            return tags, mask
        first = int(self.vocabulary.has_background)
        added = added_tags(record)
        dropped = set(record.indices) - set(tags)
        if confidence is not None:
            for index in tags:
                pixels = mask == index + first
                if index not in added and pixels.any() and confidence[pixels].mean() < least:
                    dropped.add(index)
        if dropped:
            ignored = 255 if mask.dtype == np.uint8 else 65535
            mask = np.where(np.isin(mask, [index + first for index in dropped]), ignored, mask).astype(mask.dtype)
        return tuple(index for index in tags if index not in dropped), mask


def _photos(count: int) -> str:
    return f"{count} photo" if count == 1 else f"{count} photos"

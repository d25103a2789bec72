"""A run of stage two from start to end: what `tagclip run` and `tagclip mask` do, without a command line."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.batches import plan_batches
from tagclip.devices import device_name
from tagclip.errors import RunError, UsageError
from tagclip.tag_files import TagRecord
from wsss.files.corrections import CORRECTIONS_FILE, Corrections, read_corrections, write_corrections
from wsss.files.digests import file_digest
from wsss.files.result_shards import TAR, check_layout
from wsss.files.run_files import ASIDE, read_manifest, run_id, stored_lines
from wsss.files.run_folder import RunFolder, check_identity, existing_files
from wsss.files.run_mirror import RunMirror
from wsss.masks.crf import settle_engine
from wsss.pipeline.changes import (
    Changes,
    WantedTags,
    check_corrections,
    compare_tags,
    composed,
    refuse_other_images,
    shown_ids,
)
from wsss.pipeline.given_tags import match_tags, read_given_tags, tags_digest
from wsss.pipeline.part_worker import AFTER_MAPS, CHANGEABLE, PartWorker, Watch, run_stages
from wsss.pipeline.planning import Plan, PlannedImage, Todo, confirm_photos, plan_images, survey
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import check_same_input, run_identity
from wsss.pipeline.run_model import RunModel
from wsss.pipeline.summary import floor_hint, summary_text, times_record
from wsss.pipeline.watching import watch_nothing
from wsss.pipeline.work_parts import cut_parts, missing_parts, require_parts

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP
    from tagclip.tagger import ImageTagger
    from wsss.maps.source import ClassMapSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preview:
    """What the next call would do in a folder.

    Attributes:
        images: that the run is about.
        changes: of their tags.
        masks: that would be made; through_model: of these, images whose class maps need the model.
        changed: settings that differ, one phrase each.
    """

    images: int
    changes: Changes
    masks: int
    through_model: int
    changed: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """For the screen."""
        return [
            *(f"changed: {phrase}" for phrase in self.changed), *self.changes.sentences(),
            f"{len(self.changes.remade)} of {self.images} images would change their tags; {self.masks} masks would be "
            f"made, {self.through_model} of them through the model",
        ]  # fmt: skip


class MaskRun:
    """A run on its way: the objects that its recipe describes, and the plan of its images.

    The model is loaded when it is first needed: taking tags anew from stored scores, and making masks of images whose
    tags stay, can do without.

    Args:
        recipe: settings.
        device: of the model; None: the accelerator if there is one.
        limit: only the first images; None: all.
        cache_dir: where text classifiers are kept between runs; None keeps nothing.
        corrections: file of corrections of this run, or of the run that its tags come from.
        overwrite: drop the run that is in the folder.
        part_images: least number of images in one part; None: 256. It must not change while a run has parts.

    Raises:
        UsageError: no images, no tags for any of them, a device, weights or a CRF that are not there, or corrections
            that cannot be read.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        device: str | None = None,
        limit: int | None = None,
        cache_dir: Path | str | None = None,
        corrections: Path | str | None = None,
        overwrite: bool = False,
        part_images: int | None = None,
    ):
        check_layout(recipe.run.layout, recipe.run.out)
        self.mirror: RunMirror | None = None  # of a run that lives in a store
        self.part_images = part_images
        self.device = device_name(device)
        recipe = replace(recipe, masks=settle_engine(recipe.masks, self.device))  # refused before a model is loaded
        self.recipe, self.cache_dir, self.limit, self.overwrite = recipe, cache_dir, limit, overwrite
        self.corrections_file = None if corrections is None else Path(corrections)
        self.corrections = None if corrections is None else read_corrections(corrections)
        if self.corrections is not None:
            self.corrections.check_classes(recipe.vocabulary.names, f"--corrections {corrections}")
        run = recipe.run
        files = run.images.find(run.out)[:limit]
        self.tags: dict[str, TagRecord] | None = None  # by image id
        self._given: dict[str, TagRecord] = {}  # as their file has them
        self.absent: list[str] = []
        self._tagged: set[str] | None = None
        if run.tags is not None:
            source = Path(run.tags)
            self._given = read_given_tags(source, recipe.vocabulary, ids=run.tag_ids)
            matched = match_tags(files, self._given, source)
            self.tags, files, self._tagged = matched.tags, matched.files, matched.ids
            self.absent = [] if limit else matched.absent
        else:
            check_same_input(recipe.tagging.image, recipe.masks.image)
        self.files = files
        self.model = RunModel(run, self.device, overwrite=overwrite)

    @property
    def clip(self) -> FrozenCLIP:
        """The model."""
        return self.model.clip

    @cached_property
    def plan(self) -> Plan:
        """All images, in batches."""
        settings = self.recipe.tagging
        plan = plan_images(
            self.files, self.recipe.masks.image, self.model.patch_size,
            batch_size=settings.batch_size, batch_patches=settings.batch_patches, workers=self.recipe.run.work.workers,
            kept=Path(self.recipe.run.out),
        )  # fmt: skip
        if self._tagged is not None:
            plan = plan.restrict(self._tagged)
            plan.order = [*plan.order, *self.absent]
            plan.absent = self.absent
        return plan

    def identity(self) -> dict[str, Any]:
        """Everything that the results depend on."""
        tagging = run_identity(
            self.model.identity, self.recipe.vocabulary, self.recipe.tagging, self.files,
            by_student=self.model.by_student,
        )  # fmt: skip
        identity = {**tagging, **self.recipe.identity()}
        if self.tags is not None:
            identity["tags"] = {"count": len(self._given), "digest": tags_digest(self._given)}
        return identity

    def stages(self) -> tuple[ImageTagger | None, ClassMapSource]:
        """The tagger, if tags do not come from a file, and the source of class maps."""
        return run_stages(self.recipe, self.model, self.cache_dir, tagging=self.tags is None)

    def wanted(self, corrections: Corrections | None) -> WantedTags:
        """The tags that images shall have."""
        vocabulary = self.recipe.vocabulary
        rule = None if self.tags is not None else self.recipe.tagging.rule.for_classes(vocabulary.names)
        return WantedTags(vocabulary, rule, self.tags, corrections)

    def preview(self) -> Preview | None:
        """What a call would do in a folder that holds a run already, without touching it; None if there is none.

        Raises:
            RunError, UsageError: the call would be refused.
        """
        out = Path(self.recipe.run.out)
        manifest = None if self.overwrite else read_manifest(out)
        if manifest is None:
            return None
        changed = check_identity(out, manifest, json.loads(json.dumps(self.identity())), CHANGEABLE, AFTER_MAPS)
        stored = stored_lines(out)
        merged = self._merged(out, run_id(manifest))[1]
        changes = self._compare(stored.__getitem__, stored, merged, ())
        refuse_other_images(out, changes, len(stored), self.plan.order, self.limit)
        maps = existing_files(out, "cams") | existing_files(out / ASIDE, "cams")
        masks = existing_files(out, "masks") | existing_files(out / ASIDE, "masks")
        if self.recipe.run.save_confidence:
            masks &= existing_files(out, "confidence") | existing_files(out / ASIDE, "confidence")
        remade = set(changes.remade)
        here = [image.id for image in self.plan.images if image.id not in changes.rejected]
        through_model = sum(name in remade or name not in maps or name not in stored for name in here)
        made = sum(name in remade or name not in masks or name not in maps or name not in stored for name in here)
        return Preview(len(self.plan.order), changes, made, through_model, tuple(changed))

    def execute(self, *, overwrite: bool = False, strict: bool = False, watch: Watch = watch_nothing) -> RunFolder:
        """Starts the run or resumes it, up to a complete folder; brings a complete one up to date.

        Args:
            overwrite: drop the run that is in the folder.
            strict: an image that fails makes the run fail, after all others are done.
            watch: called with the number of images and of those that have masks already; its context gives a function
                that is called after every step.

        Returns:
            The run folder, closed; `counts` and `times` say what was done.

        Raises:
            UsageError: corrections of another run.
            RunError: another run's folder, other photos than the run began with, a full disk, memory exhausted; also
                when every image failed, or any with `strict`.
        """
        recipe, out = self.recipe, Path(self.recipe.run.out)
        overwrite = overwrite or self.overwrite
        if overwrite:
            self.model.recorded = None
        if self._goes_by_parts(out, overwrite):
            if overwrite:
                with RunFolder.open(out, self.identity(), recipe.resolved(), overwrite=True):
                    overwrite = self.overwrite = False
            self.execute_parts(range(len(self.parts)), watch=watch)
        with RunFolder.open(
            out, self.identity(), recipe.resolved(), overwrite=overwrite, changeable=CHANGEABLE, after_maps=AFTER_MAPS,
        ) as run:  # fmt: skip
            self._execute(run, watch)
            if self.tags is None and (hint := floor_hint(run, recipe.tagging.rule, len(recipe.vocabulary))):
                logger.warning(hint)
        if failures := run.counts["failures"]:
            message = f"{failures} of {run.counts['images']} images failed, see {out / 'failures.jsonl'}"
            if strict or failures == run.counts["images"]:
                raise RunError(message)
            logger.warning(message)
        return run

    def _goes_by_parts(self, out: Path, overwrite: bool) -> bool:
        """Whether one process does part after part, so that no more than a part's files lie in folders at a time."""
        if self.recipe.run.layout != TAR or self.corrections is not None:
            return False
        manifest = None if overwrite else read_manifest(out)
        if manifest is None:
            return True
        is_new = manifest.get("state") != "complete" and not (out / "tags.jsonl").exists()
        is_corrected = (out / CORRECTIONS_FILE).is_file()
        identity = json.loads(json.dumps(self.identity()))
        return is_new and not is_corrected and not check_identity(out, manifest, identity, CHANGEABLE, AFTER_MAPS)

    @cached_property
    def parts(self) -> list[Plan]:
        """The plan in parts that machines share."""
        return cut_parts(self.plan, self.part_images)

    def begin_parts(self, numbers: Iterable[int]) -> list[int]:
        """Makes the folder ready for workers that do these parts.

        Args:
            numbers: of the parts, from 0.

        Returns:
            Those that are not done.

        Raises:
            UsageError: corrections, which one process alone applies.
            RunError: another run's folder, or one that a process without parts works in; other photos than the run
                began with.
        """
        out, settings = Path(self.recipe.run.out), self.recipe.resolved()
        if self.overwrite:
            with RunFolder.open(out, self.identity(), settings, overwrite=True):
                self.overwrite = False
        if self.corrections is not None or (out / CORRECTIONS_FILE).is_file():
            raise UsageError("--shard, --engine: corrections are applied by one process; leave that option out")
        undone = set(missing_parts(out, len(self.parts)))
        missing = [number for number in numbers if number in undone]
        if missing:
            with RunFolder.open(
                out, self.identity(), settings, changeable=CHANGEABLE, after_maps=AFTER_MAPS, part=missing[0]
            ) as run:
                confirm_photos(self.plan, run)
        return missing

    def execute_parts(self, numbers: Iterable[int], *, watch: Watch = watch_nothing) -> None:
        """Does parts of the run, beside other processes that do other parts; those that are done are skipped.

        Args:
            numbers: of the parts, from 0. watch: see `execute`; one call for each part.

        Raises:
            UsageError, RunError: see `begin_parts`; also a full disk, memory exhausted.
        """
        worker = PartWorker(self.recipe, self.identity(), self.model, self.cache_dir, self.tags)
        for number in self.begin_parts(numbers):
            worker.execute(number, self.parts[number], watch=watch)
            if self.mirror is not None:
                self.mirror.push()

    def merge(self, *, strict: bool = False, watch: Watch = watch_nothing) -> RunFolder:
        """Puts a run whose parts are all done into its final order; see `execute`.

        Raises:
            RunError: parts are missing, or what `execute` raises.
        """
        require_parts(Path(self.recipe.run.out), len(self.parts))
        return self.execute(strict=strict, watch=watch)

    def _execute(self, run: RunFolder, watch: Watch) -> None:
        confirm_photos(self.plan, run)
        merged, changes = self._bring_up_to_date(run)
        for name in self.absent:
            if name not in run.failures:
                run.fail(name, name, "decode", f"{name}: has tags, but there is no such image", "ImageError")
        todo = Todo() if self._is_done(run, changes) else survey(
            self.plan, run, self.recipe.masks.image, outside=changes.rejected,
            with_confidence=self.recipe.run.save_confidence, regroup=self._regroup if run.was_finished else None,
        )  # fmt: skip
        nothing_left = not (todo.batches or todo.masks or changes.lines or changes.left)
        if run.manifest is not None and run.was_complete and nothing_left:
            counts = dict(run.manifest["counts"])
            if counts["images"] == len(self.plan.order):
                run.counts = counts
                if not run.is_packed:  # another layout
                    run.adopt()
                if run.is_adopted:  # other settings, same tags
                    run.complete(self.plan.order, counts, without_photo=set(self.absent))
                run.is_complete = True
                return
        if run.manifest is not None:
            logger.info("resuming: %d of %d images have masks", len(todo.masks_there), len(self.plan.order))
            run.adopt()
        for name in todo.damaged:
            logger.warning("the class maps of %s are damaged; they are made again", name)
        # Imported when needed, and torch with them: a run that is done does without.
        from wsss.pipeline.masks import Pipeline, run_pipeline

        run.log(f"begins: {todo.images} masks to make, {len(todo.batches)} batches for the model")
        tagger, maps = self.stages() if todo.batches else (None, None)
        left = itertools.chain(todo.masks, itertools.chain.from_iterable(todo.batches))
        share = self.recipe.work(image.size for image in left)
        with watch(len(todo.masks_there) + todo.images, len(todo.masks_there)) as step:
            pipeline = Pipeline(
                run, self.clip if todo.batches else None, self.recipe.vocabulary, maps, self.recipe.masks,
                tagger=tagger, tags=self.tags, wanted=self.wanted(merged), device=self.device, work=share,
                progress=step,
            )  # fmt: skip
            run.counts = run_pipeline(pipeline, self.plan, todo)
        run.times = times_record(pipeline.times, os.times(), share.mask_workers)
        run.write_json("times.json", run.times)
        run.log(f"complete\n{summary_text(run.counts, run.times)}")

    def _is_done(self, run: RunFolder, changes: Changes) -> bool:
        """Whether a finished run is as it shall be, so that its records need not be read."""
        kinds = ("cams", "masks", *(["confidence"] if self.recipe.run.save_confidence else []))
        if not run.is_unchanged or self.absent or not changes.is_empty:
            return False
        return all(
            run.has_all(kind, (name for name in self.plan.ids() if name not in changes.rejected)) for kind in kinds
        )

    def _bring_up_to_date(self, run: RunFolder) -> tuple[Corrections | None, Changes]:
        """Takes the tags of a folder's images anew where rule, tag file, photos or corrections have changed.

        Masks and maps of images whose tags differ go first: a kill leaves none that was made of other tags.
        """
        kept, merged = self._merged(run.root, str(run.notes["id"]))
        said = merged is not None and (kept is None or _said(kept) != _said(merged))
        if run.manifest is None:
            if said and merged is not None:
                self._keep(run, merged)
            return merged, Changes()
        if run.was_complete and not run.changed and not said:
            return merged, Changes(rejected=run.rejected_ids(self.plan.order))
        if said and kept is not None and not run.was_complete:
            self._apply(run, kept, self._changes(run, kept))  # who has said it would else be forgotten
        changes = self._changes(run, merged)
        refuse_other_images(run.root, changes, len(run.tags), self.plan.order, self.limit)
        if changes.added or any(name not in changes.rejected for name in changes.remade):
            self.model.clip  # noqa: B018  # refused now, if it is another one, and not after tags have changed
        run.adopt()
        if said and merged is not None:
            self._keep(run, merged)
        for phrase in run.changed:
            run.log(f"changed: {phrase}")
        for sentence in changes.sentences():
            (logger.warning if "not there any more" in sentence else logger.info)(sentence)
            run.log(sentence)
        self._apply(run, merged, changes)
        return merged, changes

    def _changes(self, run: RunFolder, corrections: Corrections | None) -> Changes:
        return self._compare(run.tags.__getitem__, run.tags.ids(), corrections, run.failures.ids())

    def _compare(
        self, stored: Callable[[str], dict], tagged: Iterable[str], corrections: Corrections | None,
        failed: Iterable[str],
    ) -> Changes:  # fmt: skip
        return compare_tags(
            stored, tagged, self.plan.present, self.wanted(corrections),
            scores_matter=self.recipe.masks.score_power > 0, failed=failed,
        )  # fmt: skip

    def _apply(self, run: RunFolder, corrections: Corrections | None, changes: Changes) -> None:
        for name in changes.remade:
            run.drop(name)
            run.coverage.discard(name)
        run.tags.append(changes.lines)
        run.set_aside(set(self.plan.present) - changes.rejected)

    def _merged(self, out: Path, identity: str) -> tuple[Corrections | None, Corrections | None]:
        """What has been said of the run so far, and that with what is said now.

        Raises:
            UsageError: said of another run. RunError: what was said so far is gone.
        """
        kept, path = None, out / CORRECTIONS_FILE
        manifest = read_manifest(out)
        if manifest is not None and path.is_file():
            kept = read_corrections(path)
        elif manifest is not None and "corrections" in manifest:
            raise RunError(f"{path}: is gone, but this run was corrected; bring it back, or --overwrite")
        new, file = self.corrections, self.corrections_file
        if new is None or file is None:
            return kept, kept
        source = Path(self.recipe.run.tags) if self.recipe.run.tags is not None else None
        tagged = read_manifest(source if source.is_dir() else source.parent) if source is not None else None
        if tagged is None or run_id(tagged) != new.run_id:
            check_corrections(new, identity, file, f"--out {out}", self.recipe.vocabulary.names)
        here = set(self.plan.order)
        unknown = [name for name in new.images if name not in here]
        if unknown:
            logger.warning("%s: %d of its images are not in this run: %s", file, len(unknown), shown_ids(unknown))
        return kept, composed(kept, new)

    def _keep(self, run: RunFolder, corrections: Corrections) -> None:
        path = run.root / CORRECTIONS_FILE
        write_corrections(replace(corrections, run_id=str(run.notes["id"])), path)
        run.note({"corrections": {"by": corrections.by, "saved": corrections.saved, "sha256": file_digest(path)}})

    def _regroup(self, images: list[PlannedImage]) -> list[list[PlannedImage]]:
        settings = self.recipe.tagging
        batches = plan_batches([image.grid for image in images], settings.batch_size, settings.batch_patches)
        return [[images[place] for place in batch] for batch in batches]


def _said(corrections: Corrections) -> tuple[Mapping, Mapping]:
    return corrections.thresholds, corrections.images

"""A run of stage one from start to end: what `tagclip tag` does, without a command line."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.devices import device_name
from tagclip.errors import RunError
from tagclip.vocabulary import Vocabulary
from wsss.files.result_shards import check_layout
from wsss.files.run_files import read_manifest, stored_lines
from wsss.files.run_folder import RunFolder, check_identity, part_is_done
from wsss.files.run_mirror import RunMirror
from wsss.pipeline.changes import Changes, WantedTags, compare_tags, refuse_other_images
from wsss.pipeline.planning import Plan, confirm_photos, plan_images
from wsss.pipeline.run_config import TaggingRunConfig, run_identity
from wsss.pipeline.run_model import RunModel
from wsss.pipeline.summary import floor_hint
from wsss.pipeline.tags import PLAIN_LIST, run_tagging, tag_plan
from wsss.pipeline.watching import watch_nothing
from wsss.pipeline.work_parts import cut_parts, require_parts

if TYPE_CHECKING:
    from tagclip.tagger import ImageTagger

TagWatch = Callable[[int], contextlib.AbstractContextManager[Callable[[int], None]]]
logger = logging.getLogger(__name__)


class TagRun:
    """A tagging run on its way: the plan of its images, and the model, which is loaded when it is first needed.

    Args:
        config: settings.
        vocabulary: classes in place of those that the config names.
        device: of the model; None: the accelerator if there is one.
        limit: only the first images; None: all.
        cache_dir: where text classifiers are kept between runs; None keeps nothing.
        overwrite: drop the run that is in the folder.

    Raises:
        UsageError: no images, a device or weights that are not there, or an unknown vocabulary.
    """

    def __init__(
        self,
        config: TaggingRunConfig,
        *,
        vocabulary: Vocabulary | None = None,
        device: str | None = None,
        limit: int | None = None,
        cache_dir: Path | str | None = None,
        overwrite: bool = False,
    ):
        check_layout(config.layout, config.out)
        self.mirror: RunMirror | None = None  # of a run that lives in a store
        self.config, self.cache_dir, self.limit, self.overwrite = config, cache_dir, limit, overwrite
        self.vocabulary = vocabulary or config.load_vocabulary()
        self.settings = config.tagger_config(self.vocabulary)
        self.files = config.images.find(config.out)[:limit]
        self.model = RunModel(config, device_name(device), overwrite=overwrite, tags_only=True)

    @cached_property
    def plan(self) -> Plan:
        """All images, in batches."""
        return plan_images(
            self.files, self.settings.image, self.model.patch_size, workers=self.config.work.workers,
            batch_size=self.settings.batch_size, batch_patches=self.settings.batch_patches,
            kept=Path(self.config.out),
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """Everything that the results depend on."""
        return run_identity(
            self.model.identity, self.vocabulary, self.settings, self.files, kept=self.config.kept_scores,
            by_student=self.model.by_student,
        )  # fmt: skip

    @property
    def changeable(self) -> tuple[str, ...]:
        """What may change in the folder: the rule too, where all scores are stored."""
        return ("images",) if not self.config.kept_scores.all else ("images", "tagging.rule")

    def preview(self) -> Changes | None:
        """What a call would do to the tags of a folder that holds a run already; None if there is none.

        Raises:
            RunError: the call would be refused.
        """
        out = Path(self.config.out)
        manifest = None if self.overwrite else read_manifest(out)
        if manifest is None:
            return None
        check_identity(out, manifest, json.loads(json.dumps(self.identity())), self.changeable)
        stored = stored_lines(out)
        changes = self._compare(stored.__getitem__, stored, ())
        refuse_other_images(out, changes, len(stored), self.plan.order, self.limit)
        return changes

    def execute(
        self, *, overwrite: bool = False, strict: bool = False, watch: TagWatch = watch_nothing
    ) -> RunFolder:
        """Starts the run or resumes it, up to a complete folder; brings a complete one up to date.

        Args:
            overwrite: drop the run that is in the folder.
            strict: an image that fails makes the run fail, after all others are done.
            watch: called with the number of images; its context gives a function that is called with the number of
                images finished since its last call.

        Returns:
            The run folder, closed; `counts` says what was done, see `wsss.pipeline.tags.run_tagging`.

        Raises:
            RunError: another run's folder, other photos than the run began with, a full disk, memory exhausted; also
                when every image failed, or any with `strict`.
        """
        config, out = self.config, Path(self.config.out)
        overwrite = overwrite or self.overwrite
        if overwrite:
            self.model.recorded = None
        with RunFolder.open(
            out, self.identity(), config.to_dict(), overwrite=overwrite, changeable=self.changeable
        ) as run:
            confirm_photos(self.plan, run)
            self._bring_up_to_date(run)
            if self._is_done(run):
                run.counts, run.is_complete = dict((run.manifest or {})["counts"]), True
            else:
                with watch(len(self.plan.images)) as step:
                    run.counts = run_tagging(
                        run, self._tagger, self.plan, settings=self.settings, vocabulary=self.vocabulary,
                        workers=config.work.workers, kept=config.kept_scores, progress=step,
                    )  # fmt: skip
            counts = run.counts
            if hint := floor_hint(run, self.settings.rule, len(self.vocabulary)):
                logger.warning(hint)
        if failures := counts["failures"]:
            message = f"{failures} of {counts['images']} images failed, see {out / 'failures.jsonl'}"
            if strict or not counts["tagged"]:
                raise RunError(message)
            logger.warning(message)
        return run

    @cached_property
    def parts(self) -> list[Plan]:
        """The plan in parts that machines share."""
        return cut_parts(self.plan)

    def execute_parts(self, numbers: Iterable[int], *, watch: TagWatch = watch_nothing) -> None:
        """Does parts of the run, beside other processes that do other parts; those that are done are skipped.

        Args:
            numbers: of the parts, from 0. watch: see `execute`; one call for each part.

        Raises:
            RunError: another run's folder, or one that a process without parts works in; other photos than the run
                began with, a full disk, memory exhausted.
        """
        out, identity, confirmed = Path(self.config.out), self.identity(), False
        for number in numbers:
            if part_is_done(out, number):
                continue
            plan = self.parts[number]
            with RunFolder.open(out, identity, self.config.to_dict(), changeable=self.changeable, part=number) as run:
                if run.was_complete or part_is_done(out, number):
                    continue
                if not confirmed:
                    confirm_photos(self.plan, run)
                    confirmed = True
                with watch(len(plan.images)) as step:
                    tag_plan(
                        run, lambda: self._part_tagger, plan, self.settings, workers=self.config.work.workers,
                        kept=self.config.kept_scores, progress=step,
                    )  # fmt: skip
                run.finish_part()
            if self.mirror is not None:
                self.mirror.push()

    @cached_property
    def _part_tagger(self) -> ImageTagger:
        return self._tagger()

    def merge(self, *, strict: bool = False, watch: TagWatch = watch_nothing) -> RunFolder:
        """Puts a run whose parts are all done into its final order; see `execute`.

        Raises:
            RunError: parts are missing, or what `execute` raises.
        """
        require_parts(Path(self.config.out), len(self.parts))
        return self.execute(strict=strict, watch=watch)

    def _tagger(self) -> ImageTagger:
        if self.model.by_student:
            from wsss.distillation.student_tagger import StudentTagger

            self.model.loaded  # noqa: B018  # compared with what the folder was made with
            return StudentTagger(self.model.student, self.vocabulary, self.settings)
        from tagclip.tagger import TagCLIP

        return TagCLIP(self.model.clip, self.vocabulary, config=self.settings, cache_dir=self.cache_dir)

    def _is_done(self, run: RunFolder) -> bool:
        """Whether a finished run is as it shall be, so that its records need not be read."""
        counts = (run.manifest or {}).get("counts") or {}
        is_whole = run.is_packed and (run.root / PLAIN_LIST).is_file() and counts.get("images") == len(self.plan.order)
        return is_whole and run.is_unchanged and not self.plan.unreadable

    def _bring_up_to_date(self, run: RunFolder) -> None:
        if run.manifest is None or (run.was_complete and not run.changed):
            return
        changes = self._compare(run.tags.__getitem__, run.tags.ids(), run.failures.ids())
        refuse_other_images(run.root, changes, len(run.tags), self.plan.order, self.limit)
        if changes.added:
            self.model.loaded  # noqa: B018  # refused now, if it is another one, and not after tags have changed
        run.adopt()
        for sentence in changes.sentences():
            logger.info(sentence)
            run.log(sentence)
        run.tags.append(changes.lines)

    def _compare(self, stored: Callable[[str], dict], tagged: Iterable[str], failed: Iterable[str]) -> Changes:
        rule = self.settings.rule.for_classes(self.vocabulary.names) if self.config.kept_scores.all else None
        wanted = WantedTags(self.vocabulary, rule)
        return compare_tags(stored, tagged, self.plan.order, wanted, failed=failed, kept=self.config.kept_scores)

"""A run of stage two from start to end: what `tagclip run` and `tagclip mask` do, without a command line."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.devices import resolve_device
from tagclip.errors import RunError
from tagclip.tag_files import TagRecord
from wsss.files.run_folder import RunFolder
from wsss.masks.crf import settle_engine
from wsss.pipeline.given_tags import match_tags, read_given_tags, tags_digest
from wsss.pipeline.masks import Pipeline, run_pipeline
from wsss.pipeline.planning import Plan, plan_images, survey
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.shared_pass import check_same_input
from wsss.pipeline.summary import floor_hint, summary_text, times_record
from wsss.pipeline.tags import run_identity
from wsss.pipeline.watching import watch_nothing

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP
    from tagclip.tagger import TagCLIP
    from wsss.maps.source import ClassMapSource

Watch = Callable[[int, int], contextlib.AbstractContextManager[Callable[[Pipeline], None]]]
logger = logging.getLogger(__name__)


class MaskRun:
    """A run on its way: the objects that its recipe describes, and the plan of its images.

    Args:
        recipe: settings.
        device: of the model; None: the accelerator if there is one.
        limit: only the first images; None: all.
        cache_dir: where text classifiers are kept between runs; None keeps nothing.

    Raises:
        UsageError: no images, no tags for any of them, a device, weights or a CRF that are not there.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        device: str | None = None,
        limit: int | None = None,
        cache_dir: Path | str | None = None,
    ):
        chosen = resolve_device(device)
        recipe = replace(recipe, masks=settle_engine(recipe.masks, chosen))  # refused before a model is loaded
        self.recipe, self.cache_dir = recipe, cache_dir
        settings, run = recipe.tagging, recipe.run
        files = run.images.find(run.out)[:limit]
        self.tags: dict[str, TagRecord] | None = None  # by image id
        self._given: dict[str, TagRecord] = {}  # as their file has them
        self.absent: list[str] = []
        ids = None
        if run.tags is not None:
            source = Path(run.tags)
            self._given = read_given_tags(source, recipe.vocabulary, ids=run.tag_ids)
            matched = match_tags(files, self._given, source)
            self.tags, files, ids = matched.tags, matched.files, matched.ids
            self.absent = [] if limit else matched.absent
        else:
            check_same_input(settings.image, recipe.masks.image)
        self.clip: FrozenCLIP = run.model.load(chosen)
        self.plan: Plan = plan_images(
            files, recipe.masks.image, self.clip.patch_size,
            batch_size=settings.batch_size, batch_patches=settings.batch_patches, workers=run.work.workers,
        )  # fmt: skip
        if ids is not None:
            self.plan = self.plan.restrict(ids)
            self.plan.order += self.absent
        self.files = files

    def identity(self) -> dict[str, Any]:
        """Everything that the results depend on."""
        tagging = run_identity(self.clip, self.recipe.vocabulary, self.recipe.tagging, self.files, top_k=None)
        identity = {**tagging, **self.recipe.identity()}
        if self.tags is not None:
            identity["tags"] = {"count": len(self._given), "digest": tags_digest(self._given)}
        return identity

    def stages(self) -> tuple[TagCLIP | None, ClassMapSource]:
        """The tagger, if tags do not come from a file, and the source of class maps."""
        tagger = self.recipe.tagger(self.clip, self.cache_dir) if self.tags is None else None
        return tagger, self.recipe.maps(self.clip, self.cache_dir)

    def execute(self, *, overwrite: bool = False, strict: bool = False, watch: Watch = watch_nothing) -> RunFolder:
        """Starts the run or resumes it, up to a complete folder.

        Args:
            overwrite: drop the run that is in the folder.
            strict: an image that fails makes the run fail, after all others are done.
            watch: called with the number of images and of those that have masks already; its context gives a function
                that is called after every step.

        Returns:
            The run folder, closed; `counts` and `times` say what was done.

        Raises:
            RunError: another run's folder, other photos than the run began with, a full disk, memory exhausted; also
                when every image failed, or any with `strict`.
        """
        recipe, out = self.recipe, Path(self.recipe.run.out)
        with RunFolder.open(out, self.identity(), recipe.resolved(), overwrite=overwrite) as run:
            self._execute(run, watch)
            if self.tags is None and (hint := floor_hint(run, recipe.tagging.rule, len(recipe.vocabulary))):
                logger.warning(hint)
        if failures := run.counts["failures"]:
            message = f"{failures} of {run.counts['images']} images failed, see {out / 'failures.jsonl'}"
            if strict or failures == run.counts["images"]:
                raise RunError(message)
            logger.warning(message)
        return run

    def _execute(self, run: RunFolder, watch: Watch) -> None:
        for name in self.absent:
            if name not in run.failures:
                run.fail(name, name, "decode", f"{name}: has tags, but there is no such image", "ImageError")
        todo = survey(self.plan, run, self.recipe.masks.image)
        if run.manifest is not None and run.was_complete and not todo.batches and not todo.masks:
            run.counts = dict(run.manifest["counts"])
            run.is_complete = True
            return
        if run.manifest is not None:
            logger.info("resuming: %d of %d images have masks", len(todo.masks_there), len(self.plan.order))
            run.write_manifest("running")
        for name in todo.damaged:
            logger.warning("the class maps of %s are damaged; they are made again", name)
        run.log(f"begins: {todo.images} masks to make, {len(todo.batches)} batches for the model")
        tagger, maps = self.stages()
        left = [*todo.masks, *(image for batch in todo.batches for image in batch)]
        share = self.recipe.work(image.size for image in left)
        with watch(len(todo.masks_there) + todo.images, len(todo.masks_there)) as step:
            pipeline = Pipeline(
                run, self.clip, self.recipe.vocabulary, maps, self.recipe.masks,
                tagger=tagger, tags=self.tags, work=share, progress=step,
            )  # fmt: skip
            run.counts = run_pipeline(pipeline, self.plan, todo)
        run.times = times_record(pipeline.times, os.times(), share.mask_workers)
        run.write_json("times.json", run.times)
        run.log(f"complete\n{summary_text(run.counts, run.times)}")

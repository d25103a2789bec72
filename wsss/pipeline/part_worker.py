"""One worker of a run that several share: does parts, one after another, with one model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.tag_files import TagRecord
from wsss.config import AFTER_THE_MAPS
from wsss.files.run_folder import RunFolder, part_is_done
from wsss.pipeline.changes import WantedTags
from wsss.pipeline.planning import Plan, survey
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_model import RunModel
from wsss.pipeline.summary import StageTimes
from wsss.pipeline.watching import watch_nothing

if TYPE_CHECKING:
    from tagclip.tagger import ImageTagger
    from wsss.maps.source import ClassMapSource
    from wsss.pipeline.masks import MakePool, Pipeline

Watch = Callable[[int, int], contextlib.AbstractContextManager[Callable[["Pipeline"], None]]]
AFTER_MAPS = tuple(f"masks.{name}" for name in AFTER_THE_MAPS)
# What may change in a folder: tags follow from stored scores, photos come and go, confidence follows from class maps.
CHANGEABLE = ("tagging.rule", "images", "tags", "save_confidence")


@dataclass
class PartWorker:
    """Does parts of a run, beside other workers that do other parts.

    Attributes:
        recipe: settings of the run.
        identity: of the run, see `MaskRun.identity`.
        model: loaded when a part first needs it.
        cache_dir: where text classifiers are kept between runs; None keeps nothing.
        tags: tags from a file by image id; None: the model makes them.
        pool: makes the pool of mask workers; None: processes of this machine.
        begun: called with the open folder of a part before work on it begins.
    """

    recipe: Recipe
    identity: Mapping[str, Any]
    model: RunModel
    cache_dir: Path | str | None = None
    tags: Mapping[str, TagRecord] | None = None
    pool: MakePool | None = None
    begun: Callable[[RunFolder], object] = field(default=lambda run: None)

    def execute(self, number: int, plan: Plan, *, watch: Watch = watch_nothing) -> StageTimes:
        """Does a part, or what is left of it; one that is done is skipped.

        Args:
            number: of the part, from 0. plan: of its images. watch: see `MaskRun.execute`.

        Returns:
            Seconds and images of each stage.

        Raises:
            RunError: another run's folder, one that is in work elsewhere, a full disk, memory exhausted.
        """
        out = Path(self.recipe.run.out)
        if part_is_done(out, number):
            return StageTimes()
        with RunFolder.open(
            out, self.identity, self.recipe.resolved(), changeable=CHANGEABLE, after_maps=AFTER_MAPS, part=number,
        ) as run:  # fmt: skip
            if run.was_complete or part_is_done(out, number):
                return StageTimes()
            self.begun(run)
            return self._execute(run, number, plan, watch)

    def _execute(self, run: RunFolder, number: int, plan: Plan, watch: Watch) -> StageTimes:
        from wsss.pipeline.masks import Pipeline, pool_of_processes

        recipe = self.recipe
        run.only = frozenset(plan.order)
        todo = survey(plan, run, recipe.masks.image, with_confidence=recipe.run.save_confidence, confirmed=True)
        run.log(f"part {number} begins: {todo.images} masks to make, {len(todo.batches)} batches for the model")
        tagger, maps = self._stages if todo.batches else (None, None)
        share = recipe.work(image.size for image in plan.images)
        rule = None if self.tags is not None else recipe.tagging.rule.for_classes(recipe.vocabulary.names)
        with watch(len(todo.masks_there) + todo.images, len(todo.masks_there)) as step:
            pipeline = Pipeline(
                run, self.model.clip if todo.batches else None, recipe.vocabulary, maps, recipe.masks, tagger=tagger,
                tags=self.tags, wanted=WantedTags(recipe.vocabulary, rule, self.tags), device=str(self.model.device),
                work=share, pool=self.pool or pool_of_processes, progress=step,
            )  # fmt: skip
            pipeline.execute(plan, todo)
        run.log(f"part {number} is done")
        run.finish_part()
        return pipeline.times

    @cached_property
    def _stages(self) -> tuple[ImageTagger | None, ClassMapSource]:
        return run_stages(self.recipe, self.model, self.cache_dir, tagging=self.tags is None)


def run_stages(
    recipe: Recipe, model: RunModel, cache_dir: Path | str | None, *, tagging: bool
) -> tuple[ImageTagger | None, ClassMapSource]:
    """The tagger, if tags do not come from a file, and the source of class maps."""
    tagger: ImageTagger | None = None
    if tagging and model.by_student:
        from wsss.distillation.student_tagger import StudentTagger

        tagger = StudentTagger(model.student, recipe.vocabulary, recipe.tagging, prepared_by=model.clip)
    elif tagging:
        tagger = recipe.tagger(model.clip, cache_dir)
    return tagger, recipe.maps(model.clip, cache_dir)

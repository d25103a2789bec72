"""A run of stage one from start to end: what `tagclip tag` does, without a command line."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tagclip.errors import RunError
from tagclip.tagger import TagCLIP
from tagclip.vocabulary import Vocabulary
from wsss.files.run_folder import RunFolder
from wsss.pipeline.planning import Plan, plan_images
from wsss.pipeline.run_config import TaggingRunConfig
from wsss.pipeline.summary import floor_hint
from wsss.pipeline.tags import run_identity, run_tagging
from wsss.pipeline.watching import watch_nothing

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP

TagWatch = Callable[[int], contextlib.AbstractContextManager[Callable[[int], None]]]
logger = logging.getLogger(__name__)


class TagRun:
    """A tagging run on its way: the model, and the plan of its images.

    Args:
        config: settings.
        vocabulary: classes in place of those that the config names.
        device: of the model; None: the accelerator if there is one.
        limit: only the first images; None: all.
        cache_dir: where text classifiers are kept between runs; None keeps nothing.

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
    ):
        self.config, self.cache_dir = config, cache_dir
        self.vocabulary = vocabulary or config.load_vocabulary()
        self.settings = config.tagger_config(self.vocabulary)
        self.files = config.images.find(config.out)[:limit]
        self.clip: FrozenCLIP = config.model.load(device)
        self.plan: Plan = plan_images(
            self.files, self.settings.image, self.clip.patch_size, workers=config.work.workers,
            batch_size=self.settings.batch_size, batch_patches=self.settings.batch_patches,
        )  # fmt: skip

    def execute(
        self, *, overwrite: bool = False, strict: bool = False, watch: TagWatch = watch_nothing
    ) -> RunFolder:
        """Starts the run or resumes it, up to a complete folder.

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
        identity = run_identity(self.clip, self.vocabulary, self.settings, self.files, top_k=config.top_k)
        with RunFolder.open(out, identity, config.to_dict(), overwrite=overwrite) as run:
            tagger = TagCLIP(self.clip, self.vocabulary, config=self.settings, cache_dir=self.cache_dir)
            with watch(len(self.plan.images)) as step:
                counts = run.counts = run_tagging(
                    run, tagger, self.plan, workers=config.work.workers, top_k=config.top_k, progress=step
                )
            if hint := floor_hint(run, self.settings.rule, len(self.vocabulary)):
                logger.warning(hint)
        if failures := counts["failures"]:
            message = f"{failures} of {counts['images']} images failed, see {out / 'failures.jsonl'}"
            if strict or not counts["tagged"]:
                raise RunError(message)
            logger.warning(message)
        return run

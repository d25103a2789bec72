"""A run of stage two on its way: the objects that its recipe describes, and the plan of its images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.image_lists import find_images
from wsss import cli
from wsss.mask_config import Recipe
from wsss.run import RunFolder

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP
    from tagclip.tagger import TagCLIP
    from wsss.given_tags import GivenTags
    from wsss.pipeline import Pipeline
    from wsss.planning import Plan
    from wsss.views import MapSource


class MaskRun:
    """A run on its way: the objects that its recipe describes, and the plan of its images.

    Args:
        recipe: settings.
        args: the parsed command line, for what is not in the recipe (device, limit, ...).

    Raises:
        UsageError: no images, no tags for any of them, a device or weights that are not there.
    """

    def __init__(self, recipe: Recipe, args: argparse.Namespace):
        from tagclip.clip import load_clip
        from wsss.given_tags import match_tags, read_given_tags
        from wsss.pipeline import check_same_input
        from wsss.planning import plan_images

        self.recipe, self.args = recipe, args
        settings, run = recipe.tagging, recipe.run
        files = find_images(run.images.source, root=run.images.root)[: args.limit]
        self.tags: dict[str, GivenTags] | None = None
        self.absent: list[str] = []
        ids = None
        if run.tags is not None:
            source = Path(run.tags)
            self.tags = read_given_tags(source, recipe.vocabulary, ids=run.tag_ids)
            matched = match_tags(files, self.tags, source)
            files, ids, self.absent = matched.files, matched.ids, [] if args.limit else matched.absent
        else:
            check_same_input(settings.image, recipe.masks.image)
        device = cli.resolve_device(args.device)
        cli.set_threads(args.threads)
        self.clip: FrozenCLIP = load_clip(run.model.name, run.model.pretrained, device=device, dtype=run.model.dtype)
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
        from wsss.tagging import run_identity

        tagging = run_identity(self.clip, self.recipe.vocabulary, self.recipe.tagging, self.files, top_k=None)
        identity = {**tagging, **self.recipe.identity()}
        if self.tags is not None:
            from wsss.given_tags import tags_digest

            identity["tags"] = {"count": len(self.tags), "digest": tags_digest(self.tags)}
        return identity

    def stages(self) -> tuple[TagCLIP | None, MapSource]:
        """The tagger, if tags are not given, and the source of class maps."""
        cache_dir = self.args.cache_dir
        tagger = self.recipe.tagger(self.clip, cache_dir) if self.tags is None else None
        return tagger, self.recipe.maps(self.clip, cache_dir)

    def pipeline(self, run: RunFolder) -> Pipeline:
        """The pipeline into an open run folder."""
        from wsss.pipeline import Pipeline

        tagger, maps = self.stages()
        return Pipeline(
            run, self.clip, self.recipe.vocabulary, maps, self.recipe.masks,
            tagger=tagger, tags=self.tags, work=self.recipe.work(),
        )  # fmt: skip

"""What `tagclip run` and `tagclip mask` share: a run of stage two from its settings to the closing table."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tagclip.errors import UsageError
from wsss.cli.console import set_threads, texts_folder
from wsss.cli.progress import Bar, progress_bar
from wsss.cli.run_options import DEFAULT_CONFIG, place_tagger, require_own_data, run_fields
from wsss.cli.screen import Output, Table

if TYPE_CHECKING:
    from wsss.files.run_mirror import RunMirror
    from wsss.pipeline.mask_run import MaskRun
    from wsss.pipeline.recipe import Recipe
    from wsss.pipeline.summary import StageTimes

OPTIONS = (
    "images", "image-root", "classes", "config", "set", "out", "staging", "layout", "limit", "preset", "method",
    "scales", "flip", "refine", "confidence", "save-confidence", "corrections", "batch-size",
    "workers", "mask-workers", "shard", "overwrite", "strict", "dry-run", "json", "quiet",
)  # fmt: skip
NOTES = {
    "layout": "default: files",
    "config": f"default: {DEFAULT_CONFIG}",
    "mask-workers": "default: one per core",
    "method": "several: the mean of their maps",
}
logger = logging.getLogger(__name__)


def read_recipe(args: argparse.Namespace, settings: Mapping[str, Any]) -> Recipe:
    """Config and command line, resolved.

    Raises:
        UsageError: an unknown field or value, or no images or classes named.
    """
    from wsss.pipeline.recipe import Recipe
    from wsss.pipeline.run_config import MaskRunConfig, load_run_config

    require_own_data(args, settings)
    config = load_run_config(args.config or DEFAULT_CONFIG, run_fields(args, settings), MaskRunConfig())
    config = place_tagger(args, settings, config) if config.tags is None else config
    if config.images.source is None:
        raise UsageError("--images: needed, a folder, a glob, an image or a list")
    return Recipe.resolve(config)


def make_masks(
    args: argparse.Namespace, settings: Mapping[str, Any], output: Output, recipe: Recipe | None = None,
    mirror: RunMirror | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Runs to the end, or, with --dry-run, shows what a run would take.

    Args:
        recipe: settings in place of those that the command line describes.
        mirror: of a run that lives in a store.

    Returns:
        The run folder and its figures.

    Raises:
        UsageError, RunError: see `MaskRun`.
    """
    recipe = recipe or read_recipe(args, settings)
    from wsss.cli.engine import chosen_engine
    from wsss.cli.shards import check_shard, do_share
    from wsss.pipeline.mask_run import MaskRun

    shard, engine = check_shard(args), chosen_engine(args)
    set_threads(args.threads)
    mask_run = MaskRun(
        recipe, device=args.device, limit=args.limit, cache_dir=texts_folder(args), corrections=args.corrections,
        overwrite=args.overwrite,
    )  # fmt: skip
    mask_run.mirror = mirror
    plan, out, model = mask_run.plan, Path(recipe.run.out), mask_run.model
    name = recipe.run.model.name
    name = f"{model.clip.name} on {model.clip.device}" if model.is_loaded else f"{name}, not loaded yet"
    if recipe.run.model.tagger is not None:
        name = f"tags by {recipe.run.model.tagger}, maps by {name}"
    logger.info("%d images in %d batches; %d classes (%s); %s", len(plan.order), len(plan.batches),
                len(recipe.vocabulary), recipe.vocabulary.name, name)  # fmt: skip
    if args.dry_run:
        return out, _plan_only(mask_run, output)

    @contextlib.contextmanager
    def watch(total: int, done: int) -> Iterator[Callable[[Timed], None]]:
        with progress_bar(total, "masks", done=done, quiet=args.quiet) as bar:
            yield StageRates(bar)

    if shard is not None:
        return out, do_share(mask_run, shard, out, args, output, watch)
    if engine is not None:
        run = engine(mask_run, strict=args.strict, watch=watch)
    else:
        run = mask_run.execute(overwrite=args.overwrite, strict=args.strict, watch=watch)
    if run.times is None:
        output.show(f"{out}: complete already")
    show_summary(run.counts, run.times, output)
    return out, {"run": str(out), "counts": run.counts, "times": run.times}


def _plan_only(mask_run: MaskRun, output: Output) -> dict[str, Any]:
    """Shows what a run would change and take."""
    from wsss.pipeline.estimate import estimate

    preview = mask_run.preview()
    if preview is None:
        found = estimate(mask_run)
        output.show(found.text())
        return dataclasses.asdict(found)
    for sentence in preview.sentences():
        output.show(sentence)
    changes = preview.changes
    return {
        "images": preview.images, "changed": list(preview.changed), "retagged": len(changes.remade),
        "added": len(changes.added), "left": len(changes.left), "rejected": len(changes.rejected),
        "gained": dict(changes.gained), "lost": dict(changes.lost), "masks": preview.masks,
        "through_model": preview.through_model,
    }  # fmt: skip


def show_summary(counts: Mapping[str, Any], times: Mapping[str, Any] | None, output: Output) -> None:
    """The closing lines of a run."""
    from wsss.pipeline.summary import class_rows, counts_line, never_found_line, times_lines

    output.show(counts_line(counts))
    rows = [(name, str(images), f"{100 * share:.2f} %") for name, images, share in class_rows(counts)]
    output.show(Table(("class", "images", "of labelled pixels"), rows))
    for line in (*never_found_line(counts), *times_lines(times)):
        output.show(line)


class Timed(Protocol):
    """What `StageRates` looks at: a pipeline, or the sum of several."""

    @property
    def times(self) -> StageTimes:
        """Seconds and images of each stage so far."""


class StageRates:
    """Shows finished masks on a bar, with the images per second of each stage behind it."""

    def __init__(self, bar: Bar, clock: Callable[[], float] = time.perf_counter):
        self.bar, self.before, self.clock, self.start = bar, bar.done, clock, clock()

    def __call__(self, pipeline: Timed) -> None:
        images = pipeline.times.images
        elapsed = max(self.clock() - self.start, 1e-9)
        rates = ((name, images[key] / elapsed) for name, key in (
            ("decode", "decode"), ("model", "cams"), ("masks", "masks")))  # fmt: skip
        self.bar.note(", ".join(f"{name} {rate:.2f}/s" for name, rate in rates))
        self.bar.update(self.before + images["masks"] - self.bar.done)

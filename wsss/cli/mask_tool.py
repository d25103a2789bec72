"""What `tools/pipeline.py` and `tools/generate_masks.py` share: the command line, and a run from start to end."""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.config import PRESETS
from tagclip.errors import UsageError
from wsss.cli import console
from wsss.cli.run_options import command_line_options, mask_options
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import MaskRunConfig, load_run_config
from wsss.pipeline.summary import summary_text

if TYPE_CHECKING:
    from wsss.pipeline.masks import Pipeline

logger = logging.getLogger(__name__)


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    """All options of a run that makes masks. Options not given keep the config file's values."""
    from mmengine.config import DictAction

    parser.add_argument("config", type=Path, metavar="CONFIG", help="a file of configs/masks")
    data = parser.add_argument_group("data")
    data.add_argument("--images", metavar="SOURCE", help="folder (recursive), glob, image, or split list (.txt)")
    data.add_argument("--image-root", metavar="DIR", help="image root of a split list; ids are relative to it")
    data.add_argument("--out", metavar="DIR", help="run folder: tags.jsonl, cams/, masks/, failures.jsonl, ...")
    classes = data.add_mutually_exclusive_group()
    classes.add_argument("--classes", metavar="FILE", help="class file (text or YAML), or names separated by commas")
    classes.add_argument("--vocabulary", metavar="NAME", help="built-in classes: voc, coco, cocostuff, context")
    data.add_argument("--limit", type=console.positive, metavar="N", help="only the first N images")
    method = parser.add_argument_group("method")
    method.add_argument("--preset", choices=PRESETS, help="reference: the published implementations in every detail")
    method.add_argument("--threshold-rule", choices=("relative", "absolute", "top_k"), help="which scores become tags")
    method.add_argument("--threshold", type=float, metavar="T", help="of the relative and the absolute rule")
    method.add_argument("--tags-per-image", type=console.positive, metavar="K", help="of the rule top_k")
    method.add_argument("--method", nargs="+", metavar="NAME",
                        help="source of class maps: cam, or a training-free strategy; several: the mean of their maps")
    method.add_argument("--scales", type=float, nargs="+", metavar="S",
                        help="average the class maps over these image scales, 1 among them (a pass of the model each)")
    method.add_argument("--flip", action="store_true", default=None, help="and over their mirror images")
    method.add_argument("--refine", choices=("crf", "pamr", "none"), help="what sharpens the masks")
    method.add_argument("--confidence", type=float, metavar="P",
                        help="pixels whose highest probability is lower become 255 (0: none)")
    method.add_argument("--set", nargs="+", action=DictAction, metavar="KEY=VALUE", help="any field of the config")
    work = parser.add_argument_group("work")
    work.add_argument("--batch-size", type=console.positive, metavar="N", help="most images in one forward pass")
    work.add_argument("--workers", type=console.positive, metavar="N", help="decoding threads")
    work.add_argument("--crf-workers", type=console.positive, metavar="N", help="mask processes (default: one a core)")
    work.add_argument("--overwrite", action="store_true", help="drop the run that is in --out")
    work.add_argument("--strict", action="store_true", help="an image that fails makes the run fail")
    work.add_argument("--dry-run", action="store_true", help="measure a few images, show counts, time, disk; no folder")
    console.add_model_options(parser)


def read_recipe(args: argparse.Namespace) -> Recipe:
    """Config file and command line, resolved.

    Raises:
        UsageError: an unknown field or value, or no images named.
    """
    args.top_k = None  # of generate_tags: scores are kept whole here
    options = {**command_line_options(args), **mask_options(args), **(args.set or {})}
    recipe = Recipe.resolve(load_run_config(args.config, options, MaskRunConfig()))
    if recipe.run.images.source is None:
        raise UsageError("--images: needed, a folder, a glob, an image or a split list")
    return recipe


def make_masks(args: argparse.Namespace) -> Path:
    """Runs to the end, or, with --dry-run, shows what a run would take.

    Returns:
        The run folder.

    Raises:
        UsageError, RunError: see `MaskRun`.
    """
    from wsss.pipeline.mask_run import MaskRun

    recipe = read_recipe(args)
    console.set_threads(args.threads)
    mask_run = MaskRun(recipe, device=args.device, limit=args.limit, cache_dir=args.cache_dir)
    plan, out = mask_run.plan, Path(recipe.run.out)
    logger.info("%d images in %d batches; %d classes (%s); %s on %s", len(plan.order), len(plan.batches),
                len(recipe.vocabulary), recipe.vocabulary.name, mask_run.clip.name, mask_run.clip.device)
    if args.dry_run:
        from wsss.pipeline.estimate import estimate

        print(estimate(mask_run).text())
        return out
    run = mask_run.execute(overwrite=args.overwrite, strict=args.strict, watch=masks_bar)
    if run.times is None:
        print(f"{out}: complete already")
    print(summary_text(run.counts, run.times))
    return out


@contextlib.contextmanager
def masks_bar(total: int, done: int) -> Iterator[Callable[[Pipeline], None]]:
    """A progress bar of a run's masks."""
    with console.progress_bar(total, "masks", initial=done) as bar:
        yield ProgressLine(bar)


class ProgressLine:
    """Shows finished masks on a bar, with the images a second of each stage behind it."""

    def __init__(self, bar: Any):
        self.bar, self.start = bar, time.perf_counter()

    def __call__(self, pipeline: Pipeline) -> None:
        images = pipeline.times.images
        elapsed = max(time.perf_counter() - self.start, 1e-9)
        self.bar.update(images["masks"] - (self.bar.n - self.bar.initial))
        rates = ((name, images[key] / elapsed) for name, key in (
            ("decode", "decode"), ("model", "cams"), ("masks", "masks")))
        self.bar.set_postfix_str(", ".join(f"{name} {rate:.2f}/s" for name, rate in rates), refresh=False)

"""`tagclip tag`: image tags from class names alone."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.cli.console import set_threads, setup_logging, texts_folder
from wsss.cli.options import MODEL, TAG_RULE, pick, settings_of
from wsss.cli.parser import add_command
from wsss.cli.progress import progress_bar
from wsss.cli.run_options import place_tagger, require_own_data, run_fields
from wsss.cli.screen import Output
from wsss.cli.staging import staged

if TYPE_CHECKING:
    from wsss.files.run_mirror import RunMirror

DEFAULT_CONFIG = "tagging/custom"
logger = logging.getLogger(__name__)


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "tag", run=tag,
        help="Tag images with class names (TagCLIP), without masks.",
        text="The same command resumes a run that was interrupted.",
        example="tag --images photos --classes classes.txt --out runs/tags",
    )  # fmt: skip
    pick(
        parser, "images", "image-root", "classes", "config", "set", "out", "staging", "layout", "limit", "preset",
        *TAG_RULE, "keep-scores", "score-floor", "batch-size", "workers", "shard", "overwrite", "strict", "dry-run",
        "json", "quiet",
        *MODEL, notes={
            "config": f"default: {DEFAULT_CONFIG}", "model": "or a tagger of `tagclip train-tagger`",
            "layout": "default: files",
        },
    )  # fmt: skip


def tag(args: argparse.Namespace) -> int:
    """Tags the images."""
    setup_logging(args.quiet)
    settings = settings_of(args.set)
    require_own_data(args, settings)
    with staged(args) as mirror:
        return _tag(args, settings, mirror)


def _tag(args: argparse.Namespace, settings: dict[str, Any], mirror: RunMirror | None) -> int:
    from wsss.pipeline.run_config import TaggingRunConfig, load_run_config

    config = load_run_config(args.config or DEFAULT_CONFIG, run_fields(args, settings), TaggingRunConfig())
    config = place_tagger(args, settings, config)
    from wsss.cli.shards import check_shard, do_share
    from wsss.pipeline.tag_run import TagRun

    shard = check_shard(args)

    set_threads(args.threads)
    output = Output.of(args)
    run = TagRun(
        config, device=args.device, limit=args.limit, cache_dir=texts_folder(args), overwrite=args.overwrite
    )
    run.mirror = mirror
    plan = run.plan
    numbers: dict[str, Any] = {
        "images": len(run.files), "batches": len(plan.batches), "unreadable": len(plan.unreadable)
    }  # fmt: skip
    model = f"{config.model.tagger or config.model.name}, not loaded yet"
    if run.model.is_loaded:
        model = f"{run.model.loaded.name} on {run.model.loaded.device}"
    line = (f"{numbers['images']} images in {numbers['batches']} batches, {numbers['unreadable']} unreadable; "
            f"{len(run.vocabulary)} classes ({run.vocabulary.name}); {model}")  # fmt: skip
    if args.dry_run:
        output.show(line)
        if (changes := run.preview()) is not None:
            for sentence in changes.sentences():
                output.show(sentence)
            numbers |= {"added": len(changes.added), "left": len(changes.left), "changed": len(changes.remade)}
        output.figures(numbers)
        return 0
    logger.info(line)

    @contextlib.contextmanager
    def watch(total: int) -> Iterator[Callable[[int], None]]:
        with progress_bar(total, "tags", quiet=args.quiet) as bar:
            yield bar.update

    if shard is not None:
        output.figures(do_share(run, shard, Path(config.out), args, output, watch))
        return 0
    counts = run.execute(overwrite=args.overwrite, strict=args.strict, watch=watch).counts
    total, file = sum(counts["tags"].values()), Path(config.out) / "tags.jsonl"
    output.show(f"{counts['tagged']} of {counts['images']} images tagged, {total} tags: {file}")
    output.figures({"run": config.out, "counts": counts})
    return 0

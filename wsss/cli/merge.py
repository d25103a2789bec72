"""`tagclip merge`: a run whose shards are done, in its final order."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tagclip.errors import UsageError
from wsss.cli.console import passive_threads, setup_logging
from wsss.cli.options import pick
from wsss.cli.parser import add_command
from wsss.cli.screen import Output


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "merge", run=merge, first="--run",
        help="Put a run whose shards are done into its final order: the same bytes as one process gives.",
        text="The last shard merges by itself; this is for the case that it was killed there. Parts that are missing "
        "are named.",
        example="merge --run runs/mine",
    )  # fmt: skip
    pick(parser, "run", "device", "strict", "json", "quiet", required=("run",))


def merge(args: argparse.Namespace) -> int:
    """Merges."""
    passive_threads()
    setup_logging(args.quiet)
    from wsss.files.run_files import read_manifest
    from wsss.pipeline.mask_run import MaskRun
    from wsss.pipeline.recipe import Recipe
    from wsss.pipeline.run_config import MaskRunConfig, TaggingRunConfig, load_run_config
    from wsss.pipeline.tag_run import TagRun

    output, manifest, file = Output.of(args), read_manifest(args.run), args.run / "config.py"
    if manifest is None or not file.is_file():
        raise UsageError(f"--run {args.run}: no run in this folder")
    changes, limit = {"out": str(args.run)}, manifest["images"]["count"]
    run: MaskRun | TagRun
    if "masks" in manifest:
        recipe = Recipe.resolve(load_run_config(file, changes, MaskRunConfig()))
        run = MaskRun(recipe, device=args.device, limit=limit)
    else:
        run = TagRun(load_run_config(file, changes, TaggingRunConfig()), device=args.device, limit=limit)

    @contextlib.contextmanager
    def watch(*_: int) -> Iterator[Callable[[Any], None]]:
        yield lambda step: None

    counts = run.merge(strict=args.strict, watch=watch).counts
    output.show(f"{counts['images']} images, {counts['failures']} failed: {args.run}")
    output.figures({"run": str(args.run), "counts": counts})
    return 0

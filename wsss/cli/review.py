"""`tagclip review`: a page on which a person looks at a run, moves thresholds and corrects tags."""

from __future__ import annotations

import argparse
from typing import Any

from wsss.cli.console import setup_logging
from wsss.cli.options import pick
from wsss.cli.parser import add_command
from wsss.cli.progress import progress_bar
from wsss.cli.screen import Output


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "review", run=review, first="--run",
        help="Make a page of a run for the browser: look, move thresholds, correct tags (RUN/review/index.html).",
        text="The page works from disk, without a server or a network. Made again, it keeps thumbnails of what did\n"
        "not change. Save on the page writes corrections.json for `tagclip mask --corrections`.",
        example="review --run runs/mine",
    )  # fmt: skip
    pick(
        parser, "run", "image-root", "workers", "overwrite", "dry-run", "json", "quiet",
        required=("run",),
        notes={"workers": "default: one per core", "overwrite": "the page's thumbnails"},
    )  # fmt: skip


def review(args: argparse.Namespace) -> int:
    """Makes the page."""
    setup_logging(args.quiet)
    from wsss.pipeline.memory import cores
    from wsss.review.page import BYTES_PER_IMAGE, ReviewPage

    output = Output.of(args)
    page = ReviewPage.plan(args.run, image_root=args.image_root, overwrite=args.overwrite)
    figures = page.figures()
    gone = f"; {figures['photos_gone']} photos are gone" if figures["photos_gone"] else ""
    if args.dry_run:
        megabytes = figures["thumbnails"] * BYTES_PER_IMAGE / 1e6
        todo = f"{figures['thumbnails']} thumbnails to make (about {megabytes:.1f} MB)"
        output.show(f"{figures['images']} images, {todo}{gone}")
        output.figures(figures)
        return 0
    with progress_bar(len(page.jobs), "thumbnails", quiet=args.quiet) as bar:
        page.make(args.workers or cores(), bar.update)
    output.show(f"{figures['images']} images, {figures['thumbnails']} thumbnails made{gone}")
    output.show(f"open in a browser: {page.path.resolve().as_uri()}")
    output.figures(figures)
    return 0

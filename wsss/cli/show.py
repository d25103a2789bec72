"""`tagclip show`: image, class maps and mask side by side."""

from __future__ import annotations

import argparse
from typing import Any

from tagclip.errors import UsageError
from wsss.cli.console import load_model, setup_logging, texts_folder
from wsss.cli.options import MODEL, pick
from wsss.cli.parser import add_command
from wsss.cli.run_options import DEFAULT_CONFIG, data_settings
from wsss.cli.screen import Output


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "show", run=show,
        help="Draw images with their class maps and masks side by side.",
        text="With --run, from its files, without a model; with --images, tagged and masked now. --out is one sheet\n"
        "if it ends in .png, else a folder of pictures.",
        example="show --run runs/mine --out sheet.png --limit 12",
    )  # fmt: skip
    pick(
        parser, "run", "ids", "images", "image-root", "classes", "config", "names", "out", "limit", "panel-height",
        "columns", "preset", "json", "quiet", *MODEL,
        required=("out",), defaults={"limit": 12, "model": "ViT-B-16"},
        notes={"config": f"default: {DEFAULT_CONFIG}"},
    )  # fmt: skip


def show(args: argparse.Namespace) -> int:
    """Draws."""
    setup_logging(args.quiet)
    if (args.run is None) == (args.images is None):
        raise UsageError("--run or --images: give one of the two")
    from wsss.review.panels import PictureConfig
    from wsss.review.strips import save_strips, strips_of_images, strips_of_run

    output, look = Output.of(args), {"height": args.panel_height, "columns": args.columns}
    config = PictureConfig(**{name: value for name, value in look.items() if value is not None})
    if args.run is not None:
        strips = strips_of_run(args.run, args.ids, args.limit, config, args.image_root)
    else:
        from wsss.files.photo_sources import find_photos
        from wsss.masks.generator import MaskGenerator

        settings = data_settings(args)
        files, clip = find_photos(args.images, root=args.image_root)[: args.limit], load_model(args)
        generator = MaskGenerator(clip, settings.vocabulary, config=settings.masks, cache_dir=texts_folder(args))
        tagger = settings.tagger(clip, texts_folder(args))
        strips = strips_of_images(files, generator, tagger, args.names, config)
    drawn = save_strips(strips, args.out, config)
    output.show(f"{drawn} images: {args.out}")
    output.figures({"drawn": drawn, "out": str(args.out)})
    return 0

"""Pictures of what was done: image, CAM and refined CAM of each tag, mask overlay, side by side.

Examples: visualize.py --run runs/photos --out sheet.png
          visualize.py --images street.jpg --vocabulary voc --model weights/ViT-B-16.pt --out street.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tagclip.config import PRESETS
from tagclip.devices import resolve_device
from wsss.cli import console as cli
from wsss.review.panels import PictureConfig
from wsss.review.strips import save_strips, strips_of_images, strips_of_run


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    look = PictureConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="DIR", help="run folder: drawn from its files, no model needed")
    source.add_argument("--images", metavar="SOURCE", help="folder, glob, image or list: tagged and masked now")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH",
                        help="a .png: one contact sheet; else a folder: one picture an image")
    parser.add_argument("--ids", nargs="+", metavar="ID", help="with --run: these images")
    parser.add_argument("--limit", type=cli.positive, default=12, metavar="N", help="at most (default: %(default)s)")
    parser.add_argument("--height", type=cli.positive, default=look.height, metavar="PX", help="of a panel")
    parser.add_argument("--columns", type=cli.positive, default=look.columns, metavar="N", help="of the contact sheet")
    parser.add_argument("--tags", metavar="NAME,NAME", help="with --images: these classes instead of the tagger's")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument("--classes", metavar="FILE", help="class file, or names separated by commas")
    classes.add_argument("--vocabulary", metavar="NAME", help="built-in classes")
    parser.add_argument("--config", default="masks/voc2012", metavar="NAME|FILE",
                        help="data set whose constants and classes are used (default: %(default)s)")
    parser.add_argument("--preset", choices=PRESETS, default="default")
    cli.add_model_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Draws; returns the exit code."""
    args = build_parser().parse_args(argv)
    cli.setup_logging()
    look = PictureConfig(height=args.height, columns=args.columns)
    if args.run is not None:
        strips = strips_of_run(args.run, args.ids, args.limit, look)
    else:
        from tagclip.clip import load_clip
        from tagclip.image_lists import find_images
        from wsss.masks.generator import MaskGenerator
        from wsss.pipeline.recipe import dataset_settings

        files = find_images(args.images)[: args.limit]
        classes = args.classes or args.vocabulary
        recipe = dataset_settings(args.config, args.preset, {} if classes is None else {"vocabulary": classes})
        cli.set_threads(args.threads)
        clip = load_clip(args.model or "ViT-B-16", args.pretrained or "openai",
                         device=resolve_device(args.device), dtype=args.dtype or "float32")
        generator = MaskGenerator(clip, recipe.vocabulary, config=recipe.masks, cache_dir=args.cache_dir)
        tools = [generator, recipe.tagger(clip, args.cache_dir)]
        names = [name.strip() for name in args.tags.split(",")] if args.tags else None
        strips = strips_of_images(files, *tools, names, look)
    print(f"{save_strips(strips, args.out, look)} images: {args.out}")
    return 0


if __name__ == "__main__":
    cli.run_main(main)

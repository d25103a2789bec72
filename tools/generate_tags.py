"""Image tags for a folder of photos and a list of class names (TagCLIP).

Example: generate_tags.py --images photos --classes classes.txt --model weights/ViT-B-16.pt --out runs/photos
"""

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from tagclip.config import PRESETS
from tagclip.devices import resolve_device
from tagclip.errors import RunError, UsageError
from tagclip.images import find_images
from wsss.cli import console as cli

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs" / "tagging" / "_base_.py"
logger = logging.getLogger("wsss.generate_tags")


def build_parser() -> argparse.ArgumentParser:
    """The command line. Options not given keep the config file's values."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="a file of configs/tagging")
    parser.add_argument("--images", metavar="SOURCE", help="folder (recursive), glob, image, or split list (.txt)")
    parser.add_argument("--image-root", metavar="DIR", help="image root of a split list; ids are relative to it")
    parser.add_argument("--out", metavar="DIR", help="run folder: tags.jsonl, tags.txt, failures.jsonl, manifest.json")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument("--classes", metavar="FILE", help="class file (text or YAML), or names separated by commas")
    classes.add_argument("--vocabulary", metavar="NAME", help="built-in classes: voc, coco, cocostuff, context")
    parser.add_argument("--preset", choices=PRESETS, help="reference: the published implementation in every detail")
    parser.add_argument("--threshold-rule", choices=("relative", "absolute", "top_k"), help="which scores become tags")
    parser.add_argument("--threshold", type=float, metavar="T", help="of the relative and the absolute rule")
    parser.add_argument("--tags-per-image", type=cli.positive, metavar="K", help="of the rule top_k")
    parser.add_argument("--top-k", type=cli.positive, metavar="K", help="store only the K best scores of an image")
    parser.add_argument("--batch-size", type=cli.positive, metavar="N", help="most images in one forward pass")
    parser.add_argument("--workers", type=cli.positive, metavar="N", help="decoding threads")
    parser.add_argument("--limit", type=cli.positive, metavar="N", help="only the first N images")
    parser.add_argument("--set", nargs="+", action=DictAction, metavar="KEY=VALUE", help="any field of the config")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True,
                        help="go on with the run that is in --out")
    parser.add_argument("--overwrite", action="store_true", help="drop the run that is in --out")
    parser.add_argument("--strict", action="store_true", help="an image that fails makes the run fail")
    parser.add_argument("--dry-run", action="store_true", help="check everything, show the plan, write nothing")
    cli.add_model_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and tag; returns the exit code."""
    args = build_parser().parse_args(argv)
    cli.setup_logging()
    from wsss.cli.run_options import command_line_options
    from wsss.pipeline.run_config import TaggingRunConfig, load_run_config

    config = load_run_config(args.config, command_line_options(args), TaggingRunConfig())
    if config.images.source is None:
        raise UsageError("--images: needed, a folder, a glob, an image or a split list")
    vocabulary = config.load_vocabulary()
    settings = config.tagger_config(vocabulary)
    files = find_images(config.images.source, root=config.images.root)[: args.limit]
    out = Path(config.out)
    if out.joinpath("manifest.json").exists() and not (args.resume or args.overwrite or args.dry_run):
        raise UsageError(f"--out {out}: holds a run; --resume goes on with it, --overwrite drops it")

    from tagclip.clip import load_clip
    from tagclip.tagger import TagCLIP
    from wsss.files.run_folder import RunFolder
    from wsss.pipeline.planning import plan_images
    from wsss.pipeline.tags import run_identity, run_tagging

    device = resolve_device(args.device)
    cli.set_threads(args.threads)
    clip = load_clip(config.model.name, config.model.pretrained, device=device, dtype=config.model.dtype)
    limits = {"batch_size": settings.batch_size, "batch_patches": settings.batch_patches}
    plan = plan_images(files, settings.image, clip.patch_size, workers=config.work.workers, **limits)
    logger.info("%d images in %d batches, %d unreadable; %d classes (%s); %s on %s", len(files), len(plan.batches),
                len(plan.unreadable), len(vocabulary), vocabulary.name, clip.name, device)
    if args.dry_run:
        return 0
    identity = run_identity(clip, vocabulary, settings, files, top_k=config.top_k)
    with RunFolder.open(out, identity, dataclasses.asdict(config), overwrite=args.overwrite) as run:
        tagger = TagCLIP(clip, vocabulary, config=settings, cache_dir=args.cache_dir)
        with cli.progress_bar(len(plan.images), "tags") as bar:
            work = {"workers": config.work.workers, "top_k": config.top_k, "progress": bar.update}
            counts = run_tagging(run, tagger, plan, **work)
    total = sum(counts["tags"].values())
    print(f"{counts['tagged']} of {counts['images']} images tagged, {total} tags: {out / 'tags.jsonl'}")
    if counts["failures"]:
        message = f"{counts['failures']} of {counts['images']} images failed, see {out / 'failures.jsonl'}"
        if args.strict or not counts["tagged"]:
            raise RunError(message)
        logger.warning(message)
    return 0


if __name__ == "__main__":
    cli.run_main(main)

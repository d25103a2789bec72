#!/usr/bin/env python3
"""What each part of TagCLIP adds, on images with labels: CLIP's global answer, patch scores, + DMAR, + CWR.

Example: ablate_tags.py --images scenes/JPEGImages --labels scenes/val_labels.txt --vocabulary voc --model demo
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from tagclip.config import PRESETS
from tagclip.devices import resolve_device
from tagclip.errors import UsageError
from wsss.cli import console as cli


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, metavar="SOURCE", help="folder, glob, image, or split list (.txt)")
    parser.add_argument("--image-root", metavar="DIR", help="image root of a split list")
    parser.add_argument("--labels", type=Path, required=True, metavar="PATH", help="plain list, VOC XML, or COCO JSON")
    parser.add_argument("--config", default="tagging/voc2012", metavar="NAME|FILE",
                        help="data set whose constants and classes are used (default: %(default)s)")
    parser.add_argument("--vocabulary", metavar="NAME|FILE", help="other classes than the config's")
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--limit", type=cli.positive, metavar="N", help="only the first N images")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    cli.add_model_options(parser)
    args = parser.parse_args(argv)
    cli.setup_logging()

    from tagclip.clip import load_clip
    from tagclip.image_lists import find_images
    from tagclip.labels import read_labels
    from tagclip.tagger import TagCLIP
    from wsss.evaluation.ablation import ablate_tags, markdown
    from wsss.pipeline.recipe import dataset_settings

    other = {} if args.vocabulary is None else {"vocabulary": args.vocabulary}
    recipe = dataset_settings(args.config, args.preset, other)
    vocabulary = recipe.vocabulary
    labels = read_labels(args.labels, vocabulary)
    files = find_images(args.images, root=args.image_root)[: args.limit]
    if not any(file.id in labels for file in files):
        raise UsageError(f"--labels {args.labels}: none of the {len(files)} images of {args.images} has a label there")
    cli.set_threads(args.threads)
    weights = {} if args.pretrained is None else {"pretrained": args.pretrained}
    device, dtype = resolve_device(args.device), args.dtype or "float32"
    clip = load_clip(args.model or "ViT-B-16", device=device, dtype=dtype, **weights)
    tagger = TagCLIP(clip, vocabulary, config=recipe.tagging, cache_dir=args.cache_dir)
    rows = ablate_tags(tagger, files, labels, progress=lambda chunks: tqdm(chunks, desc="images", unit="chunk"))
    print(markdown(rows))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([row.to_dict() for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    cli.run_main(main)

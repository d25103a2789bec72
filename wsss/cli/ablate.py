"""`tagclip ablate`: what each part of TagCLIP adds."""

from __future__ import annotations

import argparse
from typing import Any

from tagclip.errors import UsageError
from wsss.cli.console import load_model, setup_logging
from wsss.cli.options import MODEL, pick
from wsss.cli.parser import add_command
from wsss.cli.progress import progress_bar, watched
from wsss.cli.screen import Output

CHUNK = 32  # images read at a time


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "ablate", run=ablate,
        help="Show what each part of TagCLIP adds on images with true tags: global score, patches, DMAR, CWR.",
        example="ablate --images VOC2012/JPEGImages --labels VOC2012/Annotations --classes voc",
    )  # fmt: skip
    pick(
        parser, "images", "image-root", "labels", "label-ids", "classes", "preset", "limit", "json", "quiet", *MODEL,
        required=("images", "labels"),
        defaults={"label-ids": "auto", "classes": "voc", "preset": "default", "model": "ViT-B-16"},
    )  # fmt: skip


def ablate(args: argparse.Namespace) -> int:
    """Scores and shows the table."""
    setup_logging(args.quiet)
    from tagclip.config import TagCLIPConfig
    from tagclip.image_lists import find_images
    from tagclip.labels import read_labels
    from tagclip.tagger import TagCLIP
    from tagclip.vocabulary import Vocabulary
    from wsss.evaluation.ablation import ablate_tags, ablation_table
    from wsss.pipeline.run_config import class_names

    output = Output.of(args)
    vocabulary = Vocabulary.load(class_names(args.classes))
    labels = read_labels(args.labels, vocabulary, ids=args.label_ids)
    files = [file for file in find_images(args.images, root=args.image_root)[: args.limit] if file.id in labels]
    if not files:
        raise UsageError(f"--labels {args.labels}: none of the images of {args.images} has a label there")
    settings = TagCLIPConfig.preset(args.preset, vocabulary.name)
    tagger = TagCLIP(load_model(args), vocabulary, config=settings, cache_dir=args.cache_dir)
    with progress_bar(-(-len(files) // CHUNK), "images", unit=f"x {CHUNK}", quiet=args.quiet) as bar:
        rows = ablate_tags(tagger, files, labels, chunk=CHUNK, progress=lambda chunks: watched(chunks, bar))
    output.ablation_table(ablation_table(rows))
    output.figures([row.to_dict() for row in rows])
    return 0

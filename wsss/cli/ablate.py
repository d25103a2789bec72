"""`tagclip ablate`: what each part of TagCLIP adds."""

from __future__ import annotations

import argparse
from typing import Any

from tagclip.errors import UsageError
from wsss.cli.console import load_model, setup_logging, texts_folder
from wsss.cli.options import MODEL, pick
from wsss.cli.parser import add_command
from wsss.cli.progress import progress_bar, watched
from wsss.cli.run_options import DEFAULT_CONFIG, data_settings
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
        parser, "images", "image-root", "labels", "label-ids", "classes", "config", "preset", "limit", "json",
        "quiet", *MODEL,
        required=("images", "labels"),
        defaults={"label-ids": "auto", "model": "ViT-B-16"}, notes={"config": f"default: {DEFAULT_CONFIG}"},
    )  # fmt: skip


def ablate(args: argparse.Namespace) -> int:
    """Scores and shows the table."""
    setup_logging(args.quiet)
    from tagclip.labels import read_labels
    from wsss.evaluation.ablation import ablate_tags, ablation_table
    from wsss.files.photo_sources import find_photos

    output = Output.of(args)
    settings = data_settings(args)
    labels = read_labels(args.labels, settings.vocabulary, ids=args.label_ids)
    files = [file for file in find_photos(args.images, root=args.image_root)[: args.limit] if file.id in labels]
    if not files:
        raise UsageError(f"--labels {args.labels}: none of the images of {args.images} has a label there")
    tagger = settings.tagger(load_model(args), texts_folder(args))
    with progress_bar(-(-len(files) // CHUNK), "images", unit=f"x {CHUNK}", quiet=args.quiet) as bar:
        rows = ablate_tags(tagger, files, labels, chunk=CHUNK, progress=lambda chunks: watched(chunks, bar))
    output.markdown(ablation_table(rows))
    output.figures([row.to_dict() for row in rows])
    return 0

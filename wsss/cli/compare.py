"""`tagclip compare`: training-free strategies side by side."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from tagclip.errors import UsageError
from wsss.cli.console import load_model, setup_logging, texts_folder
from wsss.cli.options import MODEL, RESTRICTIONS, pick
from wsss.cli.parser import add_command
from wsss.cli.progress import progress_bar
from wsss.cli.run_options import DEFAULT_CONFIG, data_settings
from wsss.cli.screen import Output


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "compare", run=compare,
        help="Compare training-free strategies on a VOC-layout data set: a table, a CSV file and a bar chart.",
        example="compare --data VOC2012 --classes voc --model ViT-B-16 --out compare --method clip gclip my_idea.py",
    )  # fmt: skip
    pick(
        parser, "data", "out", "classes", "config", "list", "limit", "method", "restrict", "mode", "short-side",
        "logit-scale", "pixel-threshold", "refine", "timed-images", "json", "quiet", *MODEL,
        required=("data", "out"), several=("method", "restrict"),
        choices={"mode": ("whole", "slide"), "refine": ("pamr", "none")},
        defaults={"restrict": list(RESTRICTIONS), "mode": "whole", "logit-scale": 40.0,
                  "pixel-threshold": 0.0, "refine": "none", "timed-images": 10},
        notes={"method": "default: cam, excel and all strategies", "config": f"default: {DEFAULT_CONFIG}"},
    )  # fmt: skip


def compare(args: argparse.Namespace) -> int:
    """Compares, writes the three files and shows the table."""
    setup_logging(args.quiet)
    if args.model is None:
        raise UsageError('--model: needed, an open_clip name, a weights file, or "demo"')
    from wsss.dense.comparison import SOURCES, CompareConfig, Comparison
    from wsss.dense.comparison_report import draw_bars, to_csv, to_markdown
    from wsss.dense.dense_config import DenseConfig
    from wsss.dense.strategy import strategy_names
    from wsss.files.atomic import disk_errors
    from wsss.files.sources import open_source

    output = Output.of(args)
    settings = data_settings(args)
    source = open_source(args.data, layout="voc", ann_file=args.list)
    source.require_complete()
    pairs = [(sample.image, sample.mask) for sample in source.samples[: args.limit]]
    dense = DenseConfig.from_dict({
        "mode": args.mode, "short_side": args.short_side, "logit_scale": args.logit_scale,
        "background_threshold": args.pixel_threshold, "pamr": args.refine == "pamr" or None,
        "tagging": settings.tagging.to_dict(),
    })  # fmt: skip
    methods = tuple(args.method or (*strategy_names(), *SOURCES))
    config = CompareConfig(
        methods, tuple(args.restrict), dense=dense, masks=settings.masks, timed_images=args.timed_images
    )
    clip = load_model(args)
    comparison = Comparison(clip, settings.vocabulary, config, cache_dir=texts_folder(args))
    with progress_bar(len(pairs), "comparing", quiet=args.quiet) as bar:
        rows = comparison.run(pairs, bar.update)
    caption = f"{len(pairs)} images of {args.data.name}, {clip.name}; {dense.describe()}"
    table = to_markdown(rows, caption)
    with disk_errors(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "compare.md").write_text(table, encoding="utf-8")
        (args.out / "compare.csv").write_text(to_csv(rows), encoding="utf-8")
        draw_bars(rows, args.out / "compare.png", caption)
    output.markdown(table)
    output.figures({"caption": caption, "rows": [asdict(row) for row in rows]})
    return 0

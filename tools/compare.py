"""Compare training-free strategies under different vocabularies on a VOC-layout data set: table, CSV, bar chart."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tagclip.clip import load_clip
from tagclip.devices import resolve_device
from tagclip.errors import UsageError
from wsss.cli import console as cli
from wsss.dense.comparison import CAM, VOCABULARIES, CompareConfig, Comparison, draw_bars, to_csv, to_markdown
from wsss.dense.dense_config import DenseConfig
from wsss.dense.strategy import strategy_names
from wsss.files.sources import open_source
from wsss.pipeline.recipe import dataset_settings


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = result.add_argument
    add("data", type=Path, help="folder with JPEGImages/ and SegmentationClass/")
    add("--out", type=Path, required=True, metavar="DIR", help="compare.md, compare.csv and compare.png go here")
    add("--config", default="masks/voc2012", metavar="NAME|FILE",
        help="data set whose constants and classes are used (default: %(default)s)")
    add("--classes", metavar="NAME|FILE", help="other classes than the config's")
    add("--list", dest="ann_file", metavar="FILE", help="ids, the first word of each line; default all masks")
    add("--limit", type=cli.positive, metavar="N", help="only the first N images")
    add("--strategies", nargs="+", default=[*strategy_names(), CAM], metavar="S",
        help=f"names or strategy files; {CAM} is Grad-CAM with affinity (default: all)")
    add("--vocabularies", nargs="+", choices=VOCABULARIES, default=list(VOCABULARIES), metavar="V",
        help=f"of {', '.join(VOCABULARIES)} (default: all three)")
    add("--mode", choices=("whole", "slide"), default="whole", help="(default: %(default)s)")
    add("--short-side", type=cli.positive, metavar="PX", help="resize images to this shorter side first")
    add("--logit-scale", type=float, default=DenseConfig.logit_scale, metavar="F", help="(default: %(default)s)")
    add("--threshold", type=float, default=0.0, metavar="P", help="pixels less probable become background")
    add("--pamr", action="store_true", help="refine the strategies' answers with PAMR")
    add("--timed-images", type=cli.not_negative, default=10, metavar="N", help="(default: %(default)s)")
    cli.add_model_options(result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Compares, writes the three files and prints the table."""
    args = parser().parse_args(argv)
    cli.setup_logging()
    cli.set_threads(args.threads)
    recipe = dataset_settings(args.config, options={} if args.classes is None else {"vocabulary": args.classes})
    source = open_source(args.data, layout="voc", ann_file=args.ann_file)
    source.require_complete()
    pairs = [(sample.image, sample.mask) for sample in source.samples[: args.limit]]
    if args.model is None:
        raise UsageError('--model: needed, an open_clip name, a weights file, or "demo"')
    clip = load_clip(
        args.model, args.pretrained, device=resolve_device(args.device), dtype=args.dtype or "float32"
    )
    dense = DenseConfig.from_dict({
        "mode": args.mode, "short_side": args.short_side, "logit_scale": args.logit_scale,
        "background_threshold": args.threshold, "pamr": args.pamr or None,
        "tagging": recipe.tagging.to_dict(),
    })  # fmt: skip
    config = CompareConfig(
        tuple(args.strategies), tuple(args.vocabularies), dense=dense, masks=recipe.masks,
        timed_images=args.timed_images,
    )
    comparison = Comparison(clip, recipe.vocabulary, config, cache_dir=args.cache_dir)
    with cli.progress_bar(len(pairs), "comparing") as bar:
        rows = comparison.run(pairs, bar.update)
    view = "whole images" if args.mode == "whole" else "sliding windows"
    caption = f"{len(pairs)} images of {args.data.name}, {clip.name}, {view}, logit scale {args.logit_scale:g}"
    args.out.mkdir(parents=True, exist_ok=True)
    table = to_markdown(rows, caption)
    (args.out / "compare.md").write_text(table, encoding="utf-8")
    (args.out / "compare.csv").write_text(to_csv(rows), encoding="utf-8")
    draw_bars(rows, args.out / "compare.png", caption)
    print(table)
    return 0


if __name__ == "__main__":
    cli.run_main(main)

"""Score a training-free segmentor (configs/dense) on its data set."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction

from tagclip.devices import resolve_device
from wsss.cli.console import (
    add_model_options,
    positive,
    progress_bar,
    run_main,
    set_threads,
    setup_logging,
)
from wsss.configs import read_config
from wsss.dense.dataset_scores import adapt, build_dataset_and_model, run_mmseg_loop, score_dataset, summary


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = result.add_argument
    add("config", type=Path, help="a config of configs/dense, or one that inherits from it")
    add("--strategy", help="name of a strategy, or path of a strategy file")
    add("--vocabulary", choices=("all", "tags", "labels"), help="what each image may get: every class, its tags by "
        "TagCLIP, or its true labels")
    add("--mode", choices=("whole", "slide"), help="see the whole image or sliding windows")
    add("--threshold", type=float, metavar="P", help="pixels less probable than this become background")
    add("--pamr", action="store_true", default=None, help="refine with PAMR")
    add("--data-root", metavar="DIR", help="where the data set lies")
    add("--limit", type=positive, metavar="N", help="only the first N images")
    add("--loop", choices=("ours", "mmseg"), default="ours", help="who counts (default: %(default)s)")
    add("--boundary", type=float, default=0.0, metavar="SHARE", help="boundary IoU with this band; 0: none")
    add("--json", type=Path, metavar="FILE", help="write settings and scores here")
    add("--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help="write over the config")
    add_model_options(result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Scores and prints the table."""
    args = parser().parse_args(argv)
    setup_logging()
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
    set_threads(args.threads)
    config = adapt(
        read_config(args.config),
        clip={"path_or_name": args.model, "pretrained": args.pretrained, "dtype": args.dtype},
        dense={
            "strategy": args.strategy,
            "vocabulary": args.vocabulary,
            "mode": args.mode,
            "background_threshold": args.threshold,
            "pamr": args.pamr,
        },
        data_root=args.data_root,
        cache_dir=args.cache_dir,
        limit=args.limit,
        options=args.cfg_options,
    )
    if args.loop == "mmseg":
        scores = run_mmseg_loop(config)
        result = {"dense": config.model.dense.to_dict(), **{key: float(value) for key, value in scores.items()}}
    else:
        dataset, model = build_dataset_and_model(config)
        with progress_bar(len(dataset), "segmenting") as bar:
            found = score_dataset(
                dataset, model, device=resolve_device(args.device), boundary_width=args.boundary, progress=bar.update
            )
        print(found.table())
        result = summary(found, config)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_main(main)

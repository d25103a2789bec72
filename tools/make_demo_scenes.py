#!/usr/bin/env python3
"""Renders demo scenes (emoji sprites on procedural backgrounds) as a VOC-layout data set with masks and labels."""

import argparse
from pathlib import Path

from tqdm import tqdm

from tagclip.demo.dataset import write_scenes
from tagclip.demo.scenes import SceneConfig
from tagclip.demo.sprites import HELD_OUT_STYLE, STYLES, TRAINING_STYLES
from tagclip.vocabulary import Vocabulary
from wsss.cli.console import run_main


def main(argv: list[str]) -> int:
    look = SceneConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--count", type=int, default=200, help="number of scenes")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same scenes")
    parser.add_argument("--split", default="train", help="name of the split file and prefix of the ids")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=[HELD_OUT_STYLE],
                        help=f"sprite styles; the demo model saw {', '.join(TRAINING_STYLES)} only")
    parser.add_argument("--classes", nargs="+", help="class names to draw (default: the 20 of VOC)")
    span = {"type": int, "nargs": 2, "metavar": ("LOW", "HIGH")}
    parser.add_argument("--objects", default=look.objects, help="objects a scene", **span)
    parser.add_argument("--object-side", default=look.object_side, help="longer side of an object, pixels", **span)
    parser.add_argument("--side", default=look.side, help="picture side, pixels", **span)
    args = parser.parse_args(argv)
    config = SceneConfig(side=tuple(args.side), objects=tuple(args.objects), object_side=tuple(args.object_side),
                         styles=tuple(args.styles))
    vocabulary = Vocabulary(args.classes) if args.classes else None
    write_scenes(args.out, args.count, config, seed=args.seed, split=args.split, vocabulary=vocabulary,
                 progress=lambda indices: tqdm(indices, unit="scene"))
    print(f"{args.count} scenes in {args.out}")
    return 0


if __name__ == "__main__":
    run_main(main)

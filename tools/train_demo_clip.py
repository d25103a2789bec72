#!/usr/bin/env python3
"""Trains the embedded demo model on rendered scenes, about two hours on two cores; see tagclip/demo/training.py.

Needs torch >= 2.9. Copy OUT/demo_clip.safetensors and OUT/train_log.jsonl to tagclip/demo/assets to ship the result.
"""

import argparse
from dataclasses import MISSING, fields
from pathlib import Path

from tagclip.demo.training import Training, TrainingConfig
from wsss.cli.console import run_main


def main(argv: list[str]) -> int:
    defaults = {item.name: item.default for item in fields(TrainingConfig) if item.default is not MISSING}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo_clip"), help="folder for checkpoint, weights, log")
    parser.add_argument("--start", type=Path, help="weights of an earlier run to go on from, on whole scenes only")
    parser.add_argument("--steps", type=int, help="optimiser steps")
    parser.add_argument("--lr", type=float, help="peak learning rate")
    parser.add_argument("--batch-scale", type=float, help="multiplies the batch of every phase")
    parser.add_argument("--seed", type=int, help="of weights, scenes and captions")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--workers", type=int, help="processes that render scenes")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="bfloat16 autocast")
    parser.add_argument("--cam-objects", type=int, help="objects a scene whose class activation maps are supervised")
    parser.add_argument("--eval-every", type=int, help="steps between evaluations and checkpoints")
    parser.add_argument("--eval-scenes", type=int, help="scenes of an evaluation")
    parser.add_argument("--overwrite", action="store_true", help="start anew instead of resuming")
    parser.set_defaults(**defaults)
    Training(TrainingConfig(**vars(parser.parse_args(argv)))).run()
    return 0


if __name__ == "__main__":
    run_main(main)

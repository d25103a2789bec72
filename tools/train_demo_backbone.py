#!/usr/bin/env python3
"""Trains the demo's small ResNet-18 on drawn objects that are not VOC's; see wsss/segmentation/demo_backbone.py.

Copy OUT/demo_resnet18.pth and OUT/train_log.jsonl to wsss/demo/assets to ship the result.
"""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from wsss.cli.console import run_main
from wsss.demo.backbone import BackboneTraining, train_backbone


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and says where the weights are."""
    defaults = {item.name: item.default for item in fields(BackboneTraining) if item.default is not MISSING}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo_backbone"), help="work folder")
    parser.add_argument("--steps", type=int, help="iterations")
    parser.add_argument("--batch", type=int, help="pictures an iteration")
    parser.add_argument("--lr", type=float, help="peak learning rate")
    parser.add_argument("--seed", type=int, help="of weights and pictures")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--workers", type=int, help="processes that draw pictures")
    parser.add_argument("--eval-every", type=int, help="iterations between validations and checkpoints")
    parser.set_defaults(**defaults)
    print(f"weights: {train_backbone(BackboneTraining(**vars(parser.parse_args(argv))))}")
    return 0


if __name__ == "__main__":
    run_main(main)

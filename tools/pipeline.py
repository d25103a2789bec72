"""From a folder of images and a list of class names to tags, CAMs and pseudo masks, one model pass an image.

Example: pipeline.py configs/masks/custom.py --images photos --classes classes.txt --out runs/photos
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from wsss.cli import positive, run_main, setup_logging


def build_parser() -> argparse.ArgumentParser:
    """The command line. Options not given keep the config file's values."""
    from wsss.mask_tool import add_mask_options

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_mask_options(parser)
    training = parser.add_argument_group("training")
    training.add_argument("--train", type=Path, metavar="CONFIG", help="then train this model of configs/segmentation")
    training.add_argument("--val", type=Path, metavar="DIR", help="VOC-layout folder with true masks to validate on")
    training.add_argument("--iterations", type=positive, metavar="N", help="length of the training")
    parser.set_defaults(tags=None, tag_ids=None)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Tags, CAMs and masks, then the training if there is one; returns the exit code."""
    # Idle model threads must not spin while mask workers need the cores; read when PyTorch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = build_parser().parse_args(argv)
    setup_logging()
    from wsss.mask_tool import make_masks

    out = make_masks(args)
    if args.train is not None and not args.dry_run:
        from wsss.segmentation.settings import TrainRequest
        from wsss.segmentation.train import train_segmentor

        print(train_segmentor(TrainRequest(args.train, out, val=args.val, iterations=args.iterations)).table())
    return 0


if __name__ == "__main__":
    run_main(main)

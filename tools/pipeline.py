"""From a folder of images and a list of class names to tags, CAMs and pseudo masks, one model pass an image.

Example: pipeline.py configs/masks/custom.py --images photos --classes classes.txt --out runs/photos
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from tagclip.errors import UsageError
from wsss.cli.console import run_main, setup_logging


def build_parser() -> argparse.ArgumentParser:
    """The command line. Options not given keep the config file's values."""
    from mmengine.config import DictAction

    from wsss.cli.mask_tool import add_mask_options
    from wsss.cli.train_options import add_training_options

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_mask_options(parser)
    training = parser.add_argument_group("training, after the masks")
    training.add_argument("--train", type=Path, metavar="CONFIG", help="train this model of configs/segmentation")
    add_training_options(training)
    training.add_argument("--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE",
                          help="settings written over the training's config, e.g. train_dataloader.batch_size=8")
    parser.set_defaults(tags=None, tag_ids=None)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Tags, CAMs and masks, then the training if there is one; returns the exit code."""
    # Idle model threads must not spin while mask workers need the cores; read when PyTorch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = build_parser().parse_args(argv)
    setup_logging()
    from wsss.cli.mask_tool import make_masks
    from wsss.cli.train_options import given_options, training_options

    if args.train is None and (given := given_options(args) + ["--cfg-options"] * bool(args.cfg_options)):
        raise UsageError(f"{', '.join(given)}: of a training, but no --train CONFIG was given")
    options = training_options(args)
    out = make_masks(args)
    if args.train is not None and not args.dry_run:
        from wsss.segmentation.train_settings import TrainRequest
        from wsss.segmentation.training import train_segmentor

        request = TrainRequest(args.train, out, options=args.cfg_options, overwrite=args.overwrite, **options)
        print(train_segmentor(request).table())
    return 0


if __name__ == "__main__":
    run_main(main)

"""Train DeepLab on the masks of a run folder."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import DictAction
from mmengine.dist import is_main_process

from wsss.cli.console import run_main
from wsss.cli.train_options import add_training_options, training_options
from wsss.segmentation.preflight import PreflightConfig
from wsss.segmentation.train_settings import LAUNCHERS, TrainRequest
from wsss.segmentation.training import train_segmentor


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = result.add_argument
    add("config", type=Path, help="config of configs/segmentation, or one that inherits from it")
    add("--run", type=Path, required=True, metavar="DIR", help="run folder, or VOC-layout folder, with the masks")
    add("--work-dir", type=Path, metavar="DIR", help="checkpoints and logs (default: RUN/segmentation)")
    add("--classes", metavar="NAME|FILE", help="vocabulary (default: the config's, else the run's)")
    add("--train-list", metavar="FILE", help="train on these ids only, the first word of each line")
    add("--val-list", metavar="FILE", help="validate on these ids only")
    add("--masks", type=Path, metavar="DIR", help="masks to train on instead of the run's")
    add_training_options(result)
    add("--load-from", type=Path, metavar="FILE", help="start from the weights of this checkpoint")
    add("--launcher", choices=LAUNCHERS, default="none",
        help="pytorch: start as torchrun --nproc-per-node N -- tools/train_segmentor.py ...")
    add("--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    add("--no-resume", dest="resume", action="store_false", help="start anew instead of going on")
    add("--overwrite", action="store_true", help="start anew even if the work folder belongs to another training")
    add("--headers-only", action="store_true", help="check only headers of the masks before training, not their ids")
    add("--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE",
        help="settings written over the config, e.g. train_dataloader.batch_size=8")
    return result


def request_from(args: argparse.Namespace) -> TrainRequest:
    """The parsed command line as a request.

    Raises:
        UsageError: --ground-truth without a folder and without --val.
    """
    return TrainRequest(
        config=args.config, run=args.run, work_dir=args.work_dir, vocabulary=args.classes,
        train_list=args.train_list, val_list=args.val_list, mask_dir=args.masks, load_from=args.load_from,
        options=args.cfg_options, resume=args.resume, overwrite=args.overwrite, launcher=args.launcher,
        preflight=PreflightConfig(ids=not args.headers_only), **training_options(args),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and prints the summary."""
    args = parser().parse_args(argv)
    # mmcv-lite says at every start that it has no compiled operators; DeepLab needs none.
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
    summary = train_segmentor(request_from(args))
    if is_main_process():
        print(summary.table())
    return 0


if __name__ == "__main__":
    run_main(main)

"""CAMs and pseudo masks of images whose tags are in a file: ours, a published list, or ground truth.

Example: generate_masks.py configs/masks/voc2012.py --tags runs/tags/tags.jsonl --images photos --out runs/masks
"""

import argparse
import os
from collections.abc import Sequence

from wsss.cli.console import run_main, setup_logging


def build_parser() -> argparse.ArgumentParser:
    """The command line. Options not given keep the config file's values."""
    from wsss.cli.mask_tool import add_mask_options

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_mask_options(parser)
    parser.add_argument("--tags", required=True, metavar="FILE",
                        help="tags.jsonl, a plain list `id class class`, a folder of VOC XML files, or COCO JSON")
    parser.add_argument("--tag-ids", choices=("index", "raw", "auto"),
                        help="what the numbers of a plain list are (default: auto)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """CAMs and masks; returns the exit code."""
    # Idle model threads must not spin while mask workers need the cores; read when PyTorch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = build_parser().parse_args(argv)
    setup_logging()
    from wsss.cli.mask_tool import make_masks

    make_masks(args)
    return 0


if __name__ == "__main__":
    run_main(main)

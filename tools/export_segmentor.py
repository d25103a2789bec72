"""Export a trained model to ONNX and check it against torch on a photo."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from tagclip.images import decode_image
from wsss.cli.console import positive, run_main
from wsss.segmentation.checkpoints import load_segmentor
from wsss.segmentation.onnx_export import ExportConfig, export_onnx


def parser() -> argparse.ArgumentParser:
    """The command line."""
    defaults = ExportConfig()
    result = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = result.add_argument
    add("checkpoint", type=Path, help="checkpoint of tools/train_segmentor.py, or any mmseg one with --config")
    add("out", type=Path, help="the .onnx file")
    add("--image", type=Path, required=True, metavar="FILE", help="photo that both are compared on")
    add("--config", type=Path, metavar="FILE", help="config of a checkpoint that does not describe itself")
    add("--height", type=positive, default=defaults.height, metavar="PX", help="(default: %(default)s)")
    add("--width", type=positive, default=defaults.width, metavar="PX", help="(default: %(default)s)")
    add("--dynamic", action="store_true", help="free batch, height and width")
    add("--opset", type=positive, default=defaults.opset, metavar="N", help="(default: %(default)s)")
    add("--tolerance", type=float, default=defaults.tolerance, help="largest logit difference (default: %(default)s)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Exports and prints the comparison."""
    args = parser().parse_args(argv)
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
    config = ExportConfig(args.height, args.width, args.dynamic, args.opset, args.tolerance)
    photo = decode_image(args.image)
    report = export_onnx(load_segmentor(args.checkpoint, args.config), args.out, photo, config)
    print(
        f"{args.out}: {report.megabytes:.1f} MB; largest logit difference to torch {report.difference:.1e}, "
        f"{100 * report.agreement:.2f} % of the labels equal"
    )
    return 0


if __name__ == "__main__":
    run_main(main)

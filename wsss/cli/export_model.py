"""`tagclip export-model`: a trained segmentor or tagger as ONNX."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tagclip.errors import UsageError
from wsss.cli.console import load_mmseg, setup_logging
from wsss.cli.options import pick
from wsss.cli.parser import add_command
from wsss.cli.screen import Output
from wsss.configs import find_config

if TYPE_CHECKING:
    import numpy as np

SIZE, OPSET, TOLERANCE = (512, 512), 17, 1e-3


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "export-model", run=export_model,
        help="Export a trained segmentor or tagger to ONNX and compare it with torch on a photo.",
        example="export-model --checkpoint runs/mine/segmentation/iter_4000.pth --image photo.jpg --out model.onnx",
    )  # fmt: skip
    pick(
        parser, "checkpoint", "image", "out", "config", "size", "dynamic", "opset", "tolerance", "json", "quiet",
        required=("checkpoint", "image", "out"),
        defaults={"opset": OPSET, "tolerance": TOLERANCE},
        notes={"config": "for a checkpoint that does not describe itself", "size": f"default: {SIZE[0]}x{SIZE[1]}"},
    )  # fmt: skip


def export_model(args: argparse.Namespace) -> int:
    """Exports and shows the comparison."""
    setup_logging(args.quiet)
    from tagclip.images import decode_image
    from wsss.distillation.tagger_files import is_tagger_file

    photo = decode_image(args.image)
    if is_tagger_file(args.checkpoint):
        return _export_tagger(args, photo)
    load_mmseg()
    from wsss.segmentation.checkpoints import load_segmentor
    from wsss.segmentation.onnx_export import ExportConfig, export_onnx

    width, height = args.size or SIZE
    config = ExportConfig(height, width, args.dynamic, args.opset, args.tolerance)
    config_file = None if args.config is None else find_config(args.config)
    report, output = export_onnx(load_segmentor(args.checkpoint, config_file), args.out, photo, config), Output.of(args)
    output.show(
        f"{args.out}: {report.megabytes:.1f} MB; largest logit difference to torch {report.difference:.1e}, "
        f"{100 * report.agreement:.2f} % of the labels equal"
    )
    output.figures(asdict(report))
    return 0


def _export_tagger(args: argparse.Namespace, photo: np.ndarray) -> int:
    """Exports a trained tagger, whose input has its own size."""
    for name in ("config", "size", "dynamic"):
        if getattr(args, name):
            raise UsageError(f"--{name}: of a segmentor; a tagger's input has the size that it was trained on")
    from wsss.distillation.student import load_student
    from wsss.distillation.tagger_export import export_tagger

    student = load_student(args.checkpoint)
    report = export_tagger(student, args.out, photo, opset=args.opset, tolerance=args.tolerance)
    output = Output.of(args)
    output.show(
        f"{args.out}: {report.megabytes:.1f} MB, input {student.card.side} x {student.card.side}; largest difference "
        f"of a score to torch {report.difference:.1e}"
    )
    output.figures(asdict(report))
    return 0

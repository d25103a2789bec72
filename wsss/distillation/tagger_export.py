"""A trained tagger as ONNX: a square picture in, scores out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsss.distillation.student import Student
from wsss.onnx_files import ExportReport, OnnxModel, write_onnx


class PictureToScores(nn.Module):
    """A tagger with its normalisation inside: RGB values 0..255 at the network's own size in, scores out."""

    def __init__(self, student: Student):
        super().__init__()
        self.student = student

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, side, side) float in 0..255 -> (B, C) in [0, 1]."""
        return self.student(rgb / 255).sigmoid()


def export_tagger(
    student: Student, path: Path, photo: np.ndarray, *, opset: int = 17, tolerance: float = 1e-3
) -> ExportReport:
    """Writes an ONNX file whose input `rgb` is (B, 3, side, side) float32 in 0..255 and whose output is `scores`.

    The caller squeezes photos to the square; class names, the side and the tagger's digest are in the metadata. The
    file appears only if it passes the check.

    Args:
        student: on the CPU, frozen, float32.
        photo: (H, W, 3) uint8, squeezed to the square for the check.
        opset, tolerance: see `OnnxModel`.

    Raises:
        UsageError: onnx is not installed. RunError: torch and onnxruntime disagree.
    """
    side = student.card.side
    rgb = torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1)))[None].float()
    example = nn.functional.interpolate(rgb, (side, side), mode="bilinear", antialias=True).clamp(0, 255)
    metadata = {
        "classes": json.dumps(list(student.card.classes.names)),
        "side": str(side),
        "tagger": student.weights_digest,
        "input": "rgb: float32 RGB 0..255, (batch, 3, side, side); normalisation is inside",
    }
    batch = {0: "batch"}
    model = OnnxModel(
        PictureToScores(student).eval(), "scores", (batch, batch), metadata, opset, tolerance,
        lambda found, expected: float(((found > 0.5) == (expected > 0.5)).mean()),
    )  # fmt: skip
    return write_onnx(model, path, [example, torch.cat([example, example.flip(3), 255 - example])])

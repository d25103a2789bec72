"""ONNX export of a trained model, believed only after onnxruntime gives the same answer on a photo."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from tagclip.errors import UsageError
from wsss.onnx_files import ExportReport, OnnxModel, require_onnx, write_onnx
from wsss.segmentation.checkpoints import LoadedSegmentor

if TYPE_CHECKING:
    from mmseg.models.segmentors.base import BaseSegmentor


@dataclass(frozen=True)
class ExportConfig:
    """How to export.

    Attributes:
        height, width: input size in pixels; examples only, if `dynamic`.
        dynamic: batch, height and width are free.
        opset: ONNX operator set.
        tolerance: largest allowed difference of a logit between torch and onnxruntime.
    """

    height: int = 512
    width: int = 512
    dynamic: bool = False
    opset: int = 17
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 32:
            raise UsageError(f"export size {self.width}x{self.height} is smaller than 32 pixels")


class PhotoToLogits(nn.Module):
    """A segmentor with its preprocessing inside: RGB values 0..255 in, logits at the input size out."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: BaseSegmentor) -> None:
        super().__init__()
        self.model: BaseSegmentor = model
        preprocessor = model.data_preprocessor
        self.register_buffer("mean", preprocessor.mean.detach().clone())
        self.register_buffer("std", preprocessor.std.detach().clone())

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W) float in 0..255 -> (B, classes, H, W) logits."""
        features = self.model.extract_feat((rgb - self.mean) / self.std)
        logits = self.model.decode_head(features)
        return nn.functional.interpolate(
            logits, size=rgb.shape[2:], mode="bilinear", align_corners=self.model.align_corners
        )


def export_onnx(segmentor: LoadedSegmentor, path: Path, photo: np.ndarray, config: ExportConfig) -> ExportReport:
    """Writes an ONNX file whose input `rgb` is (B, 3, H, W) float32 in 0..255 and whose output is `logits`.

    Class names and palette go into the file's metadata. The file appears only if it passes the check.

    Args:
        segmentor: the model, on the CPU.
        path: the file.
        photo: (H, W, 3) uint8, scaled to the export size for the check.
        config: settings.

    Raises:
        UsageError: a type of model that was never meant for this, or onnx is not installed.
        RunError: torch and onnxruntime disagree.
    """
    require_onnx()
    if not hasattr(segmentor.model, "decode_head") or segmentor.model.decode_head.num_classes < 2:
        raise UsageError(f"{type(segmentor.model).__name__} cannot be exported, only encoder-decoders like DeepLab can")
    free = {0: "batch", 2: "height", 3: "width"} if config.dynamic else {}
    metadata = {
        "classes": json.dumps(list(segmentor.classes)),
        "palette": json.dumps(segmentor.palette),
        "input": "rgb: float32 RGB 0..255, (batch, 3, height, width); normalisation is inside",
    }
    model = OnnxModel(
        PhotoToLogits(segmentor.model).eval(), "logits", (free, free), metadata, config.opset, config.tolerance,
        lambda found, expected: float((found.argmax(1) == expected.argmax(1)).mean()),
    )  # fmt: skip
    examples = [as_batch(photo, (config.height, config.width))]
    if config.dynamic:
        examples.append(as_batch(photo, (config.height + 32, config.width + 64)))
    return write_onnx(model, path, examples)


def as_batch(photo: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, height, width) float32 in 0..255."""
    scaled = cv2.resize(photo, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))).float()[None]

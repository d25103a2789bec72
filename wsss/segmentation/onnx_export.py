"""ONNX export of a trained model, believed only after onnxruntime gives the same answer on a photo."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from tagclip.errors import RunError, UsageError
from wsss.files.atomic import disk_errors
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


@dataclass(frozen=True)
class ExportReport:
    """Outcome of the check: largest logit difference, share of pixels with the same label, size of the file."""

    difference: float
    agreement: float
    megabytes: float


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
    _require_packages()
    if not hasattr(segmentor.model, "decode_head") or segmentor.model.decode_head.num_classes < 2:
        raise UsageError(f"{type(segmentor.model).__name__} cannot be exported, only encoder-decoders like DeepLab can")
    wrapper = PhotoToLogits(segmentor.model).eval()
    batch = as_batch(photo, (config.height, config.width))
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _export(wrapper, batch, temporary, config)
            _add_metadata(temporary, segmentor)
            report = compare_with_torch(wrapper, temporary, batch)
            if config.dynamic:
                other = as_batch(photo, (config.height + 32, config.width + 64))
                report = _worse(report, compare_with_torch(wrapper, temporary, other))
            if not report.difference < config.tolerance:
                raise RunError(
                    f"{path}: onnxruntime differs from torch by {report.difference:.2e} on the photo (allowed: "
                    f"{config.tolerance:.0e}); not written"
                )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return report


def as_batch(photo: np.ndarray, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, height, width) float32 in 0..255."""
    scaled = cv2.resize(photo, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))).float()[None]


@torch.inference_mode()
def compare_with_torch(wrapper: nn.Module, path: Path, batch: Tensor) -> ExportReport:
    """Runs both on the same input."""
    import onnxruntime

    expected = wrapper(batch).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"rgb": batch.numpy()})
    return ExportReport(
        difference=float(np.abs(found - expected).max()),
        agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
        megabytes=path.stat().st_size / 1e6,
    )


def _worse(first: ExportReport, second: ExportReport) -> ExportReport:
    return ExportReport(
        max(first.difference, second.difference), min(first.agreement, second.agreement), first.megabytes
    )


def _export(wrapper: nn.Module, batch: Tensor, path: Path, config: ExportConfig) -> None:
    axes = {"rgb": {0: "batch", 2: "height", 3: "width"}, "logits": {0: "batch", 2: "height", 3: "width"}}
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # mmseg checks sizes in Python while it is traced; the comparison that follows is what counts.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapper, (batch,), str(path), input_names=["rgb"], output_names=["logits"], opset_version=config.opset,
            dynamic_axes=axes if config.dynamic else None, dynamo=False,
        )  # fmt: skip


def _add_metadata(path: Path, segmentor: LoadedSegmentor) -> None:
    import json

    import onnx

    model = onnx.load(str(path))
    values = {
        "classes": json.dumps(list(segmentor.classes)),
        "palette": json.dumps(segmentor.palette),
        "input": "rgb: float32 RGB 0..255, (batch, 3, height, width); normalisation is inside",
    }
    for key, value in values.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _require_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} not installed; install the extra: pip install 'tagclip-wsss[seg]'")

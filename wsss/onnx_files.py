"""Models as ONNX files, believed only after onnxruntime gives the same answers as torch."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tagclip.errors import RunError, UsageError
from wsss.files.atomic import disk_errors

INPUT = "rgb"
Same = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class OnnxModel:
    """A model that is to be written.

    Attributes:
        wrapper: (B, 3, H, W) float32 in 0..255 -> its output; in evaluation mode, on the CPU.
        output: name of the output.
        free: dimensions that any batch may change, by number and name, of the input; and of the output.
        metadata: text fields of the file.
        opset: ONNX operator set.
        tolerance: largest allowed difference of an output between torch and onnxruntime.
        same: share of equal answers in two outputs.
    """

    wrapper: nn.Module
    output: str
    free: tuple[Mapping[int, str], Mapping[int, str]]
    metadata: Mapping[str, str]
    opset: int
    tolerance: float
    same: Same


@dataclass(frozen=True)
class ExportReport:
    """Outcome of the check: largest difference of an output, share of equal answers, size of the file."""

    difference: float
    agreement: float
    megabytes: float


def write_onnx(model: OnnxModel, path: Path, examples: Sequence[Tensor]) -> ExportReport:
    """Writes the file; it appears only if onnxruntime gives torch's answers for every example.

    Args:
        path: of the file.
        examples: inputs, (B, 3, H, W); the model is traced with the first.

    Returns:
        The worst of the examples.

    Raises:
        UsageError: onnx or onnxruntime is not installed. RunError: torch and onnxruntime disagree, or a full disk.
    """
    require_onnx()
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _trace(model, examples[0], temporary)
            _add_metadata(temporary, model.metadata)
            found = [compare_with_torch(model, temporary, batch) for batch in examples]
            report = ExportReport(
                max(one.difference for one in found), min(one.agreement for one in found), found[0].megabytes
            )
            if not report.difference < model.tolerance:
                raise RunError(
                    f"{path}: onnxruntime differs from torch by {report.difference:.2e} on the photo (allowed: "
                    f"{model.tolerance:.0e}); not written"
                )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return report


@torch.inference_mode()
def compare_with_torch(model: OnnxModel, path: Path, batch: Tensor) -> ExportReport:
    """Runs both on the same input."""
    import onnxruntime

    expected = model.wrapper(batch).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run([model.output], {INPUT: batch.numpy()})
    difference = float(np.abs(found - expected).max())
    return ExportReport(difference, model.same(found, expected), path.stat().st_size / 1e6)


def require_onnx() -> None:
    """Makes sure that both packages are there.

    Raises:
        UsageError: one is missing.
    """
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} not installed; install the extra: pip install 'tagclip-wsss[seg]'")


def _trace(model: OnnxModel, batch: Tensor, path: Path) -> None:
    axes = {name: dict(free) for name, free in zip((INPUT, model.output), model.free, strict=True) if free}
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # Sizes are checked in Python while a model is traced; the comparison that follows is what counts.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.wrapper, (batch,), str(path), input_names=[INPUT], output_names=[model.output],
            opset_version=model.opset, dynamic_axes=axes or None, dynamo=False,
        )  # fmt: skip


def _add_metadata(path: Path, values: Mapping[str, str]) -> None:
    import onnx

    model = onnx.load(str(path))
    for key, value in values.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    onnx.save(model, str(path))

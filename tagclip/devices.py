"""Where models compute: the default device, devices that are not there, and what a device cannot do."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tagclip.errors import UsageError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)
CUDA_DRIVER, ROCM_DEVICE = "libcuda.so.1", Path("/dev/kfd")  # without both, PyTorch has no "cuda" on Linux


def device_name(device: str | torch.device | None = None) -> str:
    """`resolve_device` by name, without importing torch where the answer is plainly the CPU.

    Raises:
        UsageError: see `resolve_device`.
    """
    if device is None and sys.platform == "linux" and not _may_have_cuda():
        device = "cpu"
    return "cpu" if str(device) == "cpu" else str(resolve_device(device))


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """The device that was asked for, None for the default; a tensor is made on it as a trial.

    Raises:
        UsageError: PyTorch does not know it, or cannot use it here.
    """
    import torch

    if device is None:
        return default_device()
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except Exception as error:  # PyTorch raises all sorts where a device, its driver or its support is missing
        reason = first_line(error)
        raise UsageError(f"--device {device}: cannot be used here ({reason}); use {_devices_here()}") from error
    return chosen


def default_device() -> torch.device:
    """cuda if there is one, else cpu."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_double(values: Tensor) -> Tensor:
    """As float64; on the CPU if the device of `values` has no such numbers."""
    if values.device.type in WITHOUT_FLOAT64:
        values = values.cpu()
    return values.double()


def _may_have_cuda() -> bool:
    """Whether this Linux machine has what PyTorch needs for "cuda", at the least: a driver of NVIDIA's, or AMD's."""
    if ROCM_DEVICE.exists():
        return True
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return False
    return True


def _devices_here() -> str:
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found += ["cuda", *(f"cuda:{index}" for index in range(1, torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    return " or ".join(found)

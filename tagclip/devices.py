"""Which device a model runs on."""

from __future__ import annotations

import torch

from tagclip.errors import UsageError


def resolve_device(device: torch.device | str | None) -> torch.device:
    """The device that is asked for, or the accelerator if there is one.

    Raises:
        UsageError: no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device}: unknown; use cpu, cuda or cuda:N") from error
    if found.type == "cuda" and (not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"--device {device}: no such CUDA device here; use --device cpu")
    return found

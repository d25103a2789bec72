"""The model of a run, loaded when it is first needed; until then, what an earlier session has recorded of it."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.errors import RunError
from wsss.files.provenance import config_values, refuse_other
from wsss.files.run_files import read_manifest
from wsss.files.run_folder import NEEDS_MODEL
from wsss.pipeline.run_config import TaggingRunConfig

if TYPE_CHECKING:
    import torch

    from tagclip.clip import FrozenCLIP

PATCH = re.compile(r"patch(\d+)-")


class RunModel:
    """A run's model.

    Taking tags anew from stored scores needs none, so it is not loaded where the folder holds a run whose config names
    the same weights in the same words. As soon as it is loaded, it is compared with what that run has recorded.

    Args:
        run: settings, whose `out` may hold a run already.
        device: that the model is put on.
        overwrite: that run is going to be dropped.
    """

    def __init__(self, run: TaggingRunConfig, device: torch.device, *, overwrite: bool = False):
        self.run, self.device = run, device
        self.recorded = None if overwrite else _recorded(run)

    @property
    def is_loaded(self) -> bool:
        """Whether it is in memory."""
        return "clip" in vars(self)

    @cached_property
    def clip(self) -> FrozenCLIP:
        """The model.

        Raises:
            UsageError: weights or a device that are not there.
            RunError: it is not the model that the folder's run was made with.
        """
        clip = self.run.model.load(self.device)
        if self.recorded is not None:
            refuse_other(
                f"--out {self.run.out}", "belongs to a run", {"model": self.recorded}, {"model": model_identity(clip)},
                NEEDS_MODEL,
            )  # fmt: skip
        return clip

    @property
    def identity(self) -> dict[str, Any]:
        """What results depend on; loads the model unless it was recorded."""
        return model_identity(self.clip) if self.recorded is None or self.is_loaded else self.recorded

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        known = None if self.recorded is None else PATCH.match(str(self.recorded.get("architecture")))
        return int(known[1]) if known else self.clip.patch_size


def model_identity(clip: FrozenCLIP) -> dict[str, Any]:
    """What the results of a model depend on, JSON-ready."""
    return {
        "architecture": clip.architecture,
        "weights": clip.weights_digest,
        "dtype": str(clip.dtype).removeprefix("torch."),
        "device": clip.device.type,
    }


def _recorded(run: TaggingRunConfig) -> dict[str, Any] | None:
    """The model that the run in `out` was made with, if its config names the same one, whose files have not changed."""
    out = Path(run.out)
    manifest = read_manifest(out)
    if manifest is None or not isinstance(manifest.get("model"), dict):
        return None
    try:
        there = config_values(out / "config.py").get("model")
    except RunError:
        return None
    model = run.to_dict()["model"]
    if there != model:
        return None
    written = (out / "config.py").stat().st_mtime
    files = [Path(value) for value in (model["name"], model["pretrained"]) if value is not None]
    if any(file.exists() and file.stat().st_mtime > written for file in files):
        return None
    return manifest["model"]

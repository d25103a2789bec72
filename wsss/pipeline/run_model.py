"""The model of a run, loaded when it is first needed; until then, what an earlier session has recorded of it."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tagclip.errors import RunError
from wsss.files.provenance import config_values, refuse_other
from wsss.files.run_files import read_manifest
from wsss.files.run_folder import NEEDS_MODEL
from wsss.pipeline.run_config import TaggingRunConfig

if TYPE_CHECKING:
    import torch

    from tagclip.clip import FrozenCLIP
    from tagclip.tagger import ImageModel
    from wsss.distillation.student import Student

PATCH = re.compile(r"patch(\d+)-")


class RunModel:
    """A run's model.

    Taking tags anew from stored scores needs none, so it is not loaded where the folder holds a run whose config names
    the same weights in the same words. As soon as it is loaded, it is compared with what that run has recorded.

    Args:
        run: settings, whose `out` may hold a run already.
        device: that the model is put on.
        overwrite: that run is going to be dropped.
        tags_only: the run makes no class maps, so that a trained tagger is all that it needs.
    """

    def __init__(
        self, run: TaggingRunConfig, device: torch.device | str, *, overwrite: bool = False, tags_only: bool = False
    ):
        self.run, self.device = run, device
        self.by_student = run.model.tagger is not None
        self.student_alone = tags_only and self.by_student
        self.recorded = None if overwrite else _recorded(run)

    @property
    def is_loaded(self) -> bool:
        """Whether it is in memory."""
        return "loaded" in vars(self)

    @cached_property
    def loaded(self) -> ImageModel:
        """The model that images are prepared for: the CLIP, or a trained tagger that works alone.

        Raises:
            UsageError: weights or a device that are not there.
            RunError: it is not the model that the folder's run was made with.
        """
        model = self.student if self.student_alone else self.run.model.load(self.device)
        if self.recorded is not None:
            refuse_other(
                f"--out {self.run.out}", "belongs to a run", {"model": self.recorded},
                {"model": self._identity_of(model)}, NEEDS_MODEL,
            )  # fmt: skip
        return model

    @property
    def clip(self) -> FrozenCLIP:
        """The CLIP; see `loaded` for what is raised."""
        if self.student_alone:
            raise ValueError("a run of a tagger alone has no CLIP")
        return cast("FrozenCLIP", self.loaded)

    @cached_property
    def student(self) -> Student:
        """The trained tagger of a run that has one.

        Raises:
            UsageError: a file that is not there or no tagger's.
        """
        from wsss.distillation.student import load_student

        settings = self.run.model
        assert settings.tagger is not None  # `by_student` says so
        return load_student(settings.tagger, self.device, settings.dtype)

    @property
    def identity(self) -> dict[str, Any]:
        """What results depend on; loads the model unless it was recorded."""
        return self._identity_of(self.loaded) if self.recorded is None or self.is_loaded else self.recorded

    def _identity_of(self, model: ImageModel) -> dict[str, Any]:
        own = model_identity(model)
        return {**own, "tagger": model_identity(self.student)} if self.by_student and not self.student_alone else own

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        known = None if self.recorded is None else PATCH.match(str(self.recorded.get("architecture")))
        return int(known[1]) if known else self.loaded.patch_size


def model_identity(model: ImageModel) -> dict[str, Any]:
    """What the results of a model depend on, JSON-ready."""
    return {
        "architecture": model.architecture,
        "weights": model.weights_digest,
        "dtype": model.number_format,
        "device": model.device.type,
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
    named = (model["name"], model["pretrained"], model.get("tagger"))
    files = [Path(value) for value in named if value is not None]
    if any(file.exists() and file.stat().st_mtime > written for file in files):
        return None
    return manifest["model"]

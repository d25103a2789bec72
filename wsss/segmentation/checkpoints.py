"""Trained models from checkpoint files, without executing what is in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tagclip.errors import UsageError, WeightsError
from tagclip.text_files import parse_json

if TYPE_CHECKING:
    from mmseg.models.segmentors.base import BaseSegmentor
from wsss.configs import read_config

PLUGIN = "wsss.mmseg_plugin"  # registers our types, as `custom_imports` of the configs does
DESCRIPTION = "segmentor"  # key in the meta of a checkpoint that describes itself
DAMAGED = "its description of the model is damaged; give its --config"


@dataclass(frozen=True)
class LoadedSegmentor:
    """A model ready for inference.

    Attributes:
        model: an mmseg segmentor in evaluation mode.
        classes: names by label.
        palette: RGB colours by label.
        test_pipeline: the configuration's, for the base size of images.
        multi_scale: {"scales": [...], "flip": bool} of the configuration, may be empty.
    """

    model: BaseSegmentor
    classes: tuple[str, ...]
    palette: list[list[int]]
    test_pipeline: list[dict[str, Any]]
    multi_scale: dict[str, Any]


def load_segmentor(checkpoint: str | Path, config: str | Path | None = None, device: str = "cpu") -> LoadedSegmentor:
    """Builds the model of a checkpoint.

    Args:
        checkpoint: file written during training by `tagclip train`, or any mmseg checkpoint with `config`.
        config: config file; needed for checkpoints that do not describe themselves.
        device: where the model goes.

    Raises:
        WeightsError: not a checkpoint, or weights of another model.
        UsageError: a checkpoint without description and no config.
    """
    from mmengine.config import ConfigDict
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    from mmengine.utils import import_modules_from_strings
    from mmseg.registry import MODELS

    import_modules_from_strings(PLUGIN)
    stored = read_training_checkpoint(Path(checkpoint))
    settings = _settings(Path(checkpoint), stored, config)
    init_default_scope("mmseg")
    model_settings = ConfigDict(settings["model"])
    model_settings["pretrained"] = None
    model_settings["train_cfg"] = None
    for key in {"init_cfg", "pretrained"} & set(model_settings["backbone"]):
        model_settings["backbone"][key] = None
    model = revert_sync_batchnorm(MODELS.build(model_settings))
    try:
        model.load_state_dict(stored["state_dict"])
    except RuntimeError as error:
        raise WeightsError(f"{checkpoint}: weights of another model ({_first_line(error)})") from None
    classes = tuple(settings["classes"]) or tuple(str(label) for label in range(model.out_channels))
    palette = [list(colour) for colour in settings["palette"]] or _plain_palette(len(classes))
    model.to(device).eval()
    return LoadedSegmentor(
        model, classes, palette, list(settings.get("test_pipeline") or []), dict(settings.get("tta") or {})
    )


def read_training_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content: tensors, numbers, text and mmengine's history, nothing that runs code.

    Raises:
        WeightsError: no such file, or not such a checkpoint.
    """
    stored = read_harmless(path)
    if not isinstance(stored, Mapping) or "state_dict" not in stored:
        raise WeightsError(f"{path} is not a checkpoint: it has no state_dict")
    return dict(stored)


def read_harmless(path: str | Path) -> Any:
    """Whatever a file of torch.save holds, as long as it is tensors, numbers, text and mmengine's history.

    mmengine itself reads a file that is more than that by running it; what it is to read goes through here first.

    Raises:
        WeightsError: no such file, not one of torch.save, or one that would run code.
    """
    if not Path(path).is_file():
        raise WeightsError(f"checkpoint {path} does not exist")
    try:
        with torch.serialization.safe_globals(_allowed_types()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes the unpickler raises whatever it runs into
        raise WeightsError(f"checkpoint {path} cannot be read ({_first_line(error)})") from None


def _allowed_types() -> list[Any]:
    """What mmengine's log history in a checkpoint is made of; unpickling anything else is refused."""
    from mmengine.logging.history_buffer import HistoryBuffer
    from numpy._core import multiarray

    def history_method(owner: Any, name: str) -> Any:
        # Stands in for getattr, through which a crafted file could reach anything.
        if owner is not HistoryBuffer or name.startswith("_"):
            raise pickle.UnpicklingError(f"attribute {name} of {owner!r} is not part of a log history")
        return getattr(owner, name)

    kinds = (np.float64, np.float32, np.int64, np.int32, np.uint32, np.bool_)
    return [
        HistoryBuffer,
        (history_method, "builtins.getattr"),
        np.ndarray,
        np.dtype,
        multiarray._reconstruct,
        multiarray.scalar,
        *(type(np.dtype(kind)) for kind in kinds),
    ]


def _settings(path: Path, stored: Mapping[str, Any], config: str | Path | None) -> dict[str, Any]:
    meta = stored.get("meta") or {}
    try:
        described = _described(meta)
    except ValueError as error:
        if config is None:
            raise WeightsError(f"checkpoint {path}: {DAMAGED} ({error})") from None
        described = None
    if config is None:
        if described is None:
            raise UsageError(f"checkpoint {path} does not describe its model; give its --config")
        return described
    loaded = read_config(config)
    labels = described or meta.get("dataset_meta") or {}
    return {
        "model": loaded.model,
        "test_pipeline": loaded.get("test_pipeline", []),
        "tta": loaded.get("multi_scale_test", {}),
        "classes": labels.get("classes", ()),
        "palette": labels.get("palette", ()),
    }


def _described(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    if DESCRIPTION not in meta:
        return None
    described = parse_json(meta[DESCRIPTION]) if isinstance(meta[DESCRIPTION], str) else meta[DESCRIPTION]
    if not isinstance(described, dict):
        raise ValueError(f"{type(described).__name__} instead of a mapping")
    if missing := {"model", "classes", "palette"} - set(described):
        raise ValueError(f"without {', '.join(sorted(missing))}")
    return described


def _plain_palette(count: int) -> list[list[int]]:
    from tagclip.vocabulary import voc_palette

    return voc_palette(count).tolist()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] if lines else type(error).__name__

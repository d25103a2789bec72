"""Stages two and three: class activation maps, pseudo masks, segmentation training."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public name -> module. Imported on first use: CRF workers and the mask evaluation never load torch for them.
_PUBLIC = {
    "MaskConfig": "wsss.config",
    "MaskGenerator": "wsss.masks.generator",
    "MaskResult": "wsss.masks.generator",
    "config_path": "wsss.configs",
    "dataset_settings": "wsss.pipeline.recipe",
}

__all__ = ["MaskConfig", "MaskGenerator", "MaskResult", "config_path", "dataset_settings"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tagclip.requirements import explained_imports

    with explained_imports():
        module = import_module(_PUBLIC[name])
    return getattr(module, name)

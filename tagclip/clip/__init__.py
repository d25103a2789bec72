"""The frozen encoder: the only package that touches open_clip."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tagclip.clip.encoder import DINO_POSITIONS, FrozenCLIP, PositionInterpolation
    from tagclip.clip.loading import load_clip, wrap_clip
    from tagclip.clip.prompts import build_text_classifier
    from tagclip.clip.templates import CAM_TEMPLATE, TAGGING_TEMPLATES
    from tagclip.clip.trunk import AttentionRequest, Grid, Trunk

# Public name -> module. Imported on first use: a run that finds nothing to do plans patch grids, and needs no model.
_PUBLIC = {
    "CAM_TEMPLATE": "tagclip.clip.templates",
    "DINO_POSITIONS": "tagclip.clip.encoder",
    "TAGGING_TEMPLATES": "tagclip.clip.templates",
    "AttentionRequest": "tagclip.clip.trunk",
    "FrozenCLIP": "tagclip.clip.encoder",
    "Grid": "tagclip.clip.trunk",
    "PositionInterpolation": "tagclip.clip.encoder",
    "Trunk": "tagclip.clip.trunk",
    "build_text_classifier": "tagclip.clip.prompts",
    "load_clip": "tagclip.clip.loading",
    "wrap_clip": "tagclip.clip.loading",
}

__all__ = [
    "CAM_TEMPLATE",
    "DINO_POSITIONS",
    "TAGGING_TEMPLATES",
    "AttentionRequest",
    "FrozenCLIP",
    "Grid",
    "PositionInterpolation",
    "Trunk",
    "build_text_classifier",
    "load_clip",
    "wrap_clip",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

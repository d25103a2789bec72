"""The frozen encoder: the only package that touches open_clip."""

from tagclip.clip.encoder import DINO_POSITIONS, FrozenCLIP, PositionInterpolation
from tagclip.clip.loading import load_clip, wrap_clip
from tagclip.clip.prompts import CAM_TEMPLATE, TAGGING_TEMPLATES, build_text_classifier
from tagclip.clip.trunk import AttentionRequest, Grid, Trunk

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

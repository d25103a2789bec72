"""Prompt templates, at hand without torch: settings are read where no model is loaded."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def _open_clip_metadata() -> ModuleType:
    """open_clip's module of templates alone: its package takes seconds, as it brings torch and torchvision."""
    package = find_spec("open_clip")
    places = () if package is None else package.submodule_search_locations or ()
    path = next((file for place in places if (file := Path(place) / "zero_shot_metadata.py").is_file()), None)
    spec = None if path is None or "open_clip" in sys.modules else spec_from_file_location("_clip_templates", path)
    if spec is None or spec.loader is None:
        import open_clip

        return open_clip
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCENE_TEMPLATES = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
# The 80 ImageNet templates of CLIP, which most training-free methods average over.
IMAGENET_TEMPLATES: tuple[str, ...] = tuple(
    template("{}") for template in _open_clip_metadata().OPENAI_IMAGENET_TEMPLATES
)
# The same and five more: what TagCLIP's published classifiers average over.
TAGGING_TEMPLATES: tuple[str, ...] = (*IMAGENET_TEMPLATES, *SCENE_TEMPLATES)
CAM_TEMPLATE = "a clean origami {}."  # CLIP-ES, arXiv 2212.09506, section 3.2

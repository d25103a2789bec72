"""Stages two and three: class activation maps, pseudo masks, segmentation training."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsss.config import MaskConfig
    from wsss.configs import config_path
    from wsss.files.run_reader import RunReader
    from wsss.masks.generator import MaskGenerator, MaskResult
    from wsss.masks.labeled_image import LabeledImage
    from wsss.pipeline.image_labeler import ImageLabeler
    from wsss.pipeline.label_folder import label_folder, tag_folder
    from wsss.pipeline.recipe import dataset_settings
    from wsss.segmentation.segmentor import SegmentedImage, Segmentor
    from wsss.segmentation.train_settings import TrainRequest
    from wsss.segmentation.training import train_segmentor

# Public name -> module. Imported on first use: CRF workers and the mask evaluation never load torch for them.
_PUBLIC = {
    "ImageLabeler": "wsss.pipeline.image_labeler",
    "LabeledImage": "wsss.masks.labeled_image",
    "MaskConfig": "wsss.config",
    "MaskGenerator": "wsss.masks.generator",
    "MaskResult": "wsss.masks.generator",
    "RunReader": "wsss.files.run_reader",
    "SegmentedImage": "wsss.segmentation.segmentor",
    "Segmentor": "wsss.segmentation.segmentor",
    "TrainRequest": "wsss.segmentation.train_settings",
    "config_path": "wsss.configs",
    "dataset_settings": "wsss.pipeline.recipe",
    "label_folder": "wsss.pipeline.label_folder",
    "tag_folder": "wsss.pipeline.label_folder",
    "train_segmentor": "wsss.segmentation.training",
}

__all__ = [
    "ImageLabeler",
    "LabeledImage",
    "MaskConfig",
    "MaskGenerator",
    "MaskResult",
    "RunReader",
    "SegmentedImage",
    "Segmentor",
    "TrainRequest",
    "config_path",
    "dataset_settings",
    "label_folder",
    "tag_folder",
    "train_segmentor",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tagclip.requirements import explained_imports

    with explained_imports():
        module = import_module(_PUBLIC[name])
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

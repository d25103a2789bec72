"""What mmseg's registries need from us: a config brings it in by custom_imports=dict(imports=["wsss.mmseg_plugin"])."""

from .clip_segmentor import ClipSegmentor, CocoStuffToObjects
from .deeplabv2_head import DeepLabV2Head
from .hooks import SelfDescribingCheckpointHook, TrainingCurveHook
from .pseudo_mask_dataset import PseudoMaskDataset
from .transforms import LoadUprightImage
from .weighted_segmentor import WeightedEncoderDecoder

__all__ = [
    "ClipSegmentor",
    "CocoStuffToObjects",
    "DeepLabV2Head",
    "LoadUprightImage",
    "PseudoMaskDataset",
    "SelfDescribingCheckpointHook",
    "TrainingCurveHook",
    "WeightedEncoderDecoder",
]

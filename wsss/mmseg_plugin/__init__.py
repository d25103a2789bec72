"""What mmseg's registries need from us: a config brings it in by custom_imports=dict(imports=["wsss.mmseg_plugin"])."""

from wsss.mmseg_plugin.clip_segmentor import ClipSegmentor, CocoStuffToObjects
from wsss.mmseg_plugin.deeplabv2_head import DeepLabV2Head
from wsss.mmseg_plugin.hooks import SelfDescribingCheckpointHook, TrainingCurveHook
from wsss.mmseg_plugin.pseudo_mask_dataset import PseudoMaskDataset
from wsss.mmseg_plugin.transforms import LoadLabelMap, LoadUprightImage, ResizeCentreCrop
from wsss.mmseg_plugin.weighted_segmentor import WeightedEncoderDecoder

__all__ = [
    "ClipSegmentor",
    "CocoStuffToObjects",
    "DeepLabV2Head",
    "LoadLabelMap",
    "LoadUprightImage",
    "PseudoMaskDataset",
    "ResizeCentreCrop",
    "SelfDescribingCheckpointHook",
    "TrainingCurveHook",
    "WeightedEncoderDecoder",
]

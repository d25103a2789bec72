"""DeepLabV3+ R101 on COCO, 80 classes and background."""

_base_ = "./_base_/deeplabv3plus_r101.py"
locals().update(__import__("wsss.segmentation.bases", fromlist=["trained_on"]).trained_on(_base_, "coco"))

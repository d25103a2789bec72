"""DeepLabV3+ R18 on COCO, 80 classes and background."""

_base_ = "./_base_/deeplabv3plus_r18.py"
locals().update(__import__("wsss.segmentation.bases", fromlist=["trained_on"]).trained_on(_base_, "coco"))

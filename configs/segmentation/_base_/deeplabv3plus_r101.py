"""DeepLabV3+ (arXiv 1802.02611), ResNet-101."""

_base_ = "./deeplabv3plus_r50.py"

model = dict(pretrained="open-mmlab://resnet101_v1c", backbone=dict(depth=101))

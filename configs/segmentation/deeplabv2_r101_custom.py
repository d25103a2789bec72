"""DeepLabV2 R101 on your own classes; the run folder or --classes tells how many."""

_base_ = "./_base_/deeplabv2_r101.py"
locals().update(__import__("wsss.segmentation.bases", fromlist=["trained_on"]).trained_on(_base_, "custom"))

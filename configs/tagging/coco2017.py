# COCO 2017 validation: published micro F1 0.541.
_base_ = "./_base_.py"
vocabulary = "coco"
images = dict(source="data/coco/val2017")
out = "runs/tags_coco2017"

# COCO 2014 validation: published mAP 68.8.
_base_ = "./_base_.py"
vocabulary = "coco"
images = dict(source="data/coco/val2014")
out = "runs/tags_coco2014"

# COCO-Stuff, 171 classes: published micro F1 0.467. The presets know its thresholds and affinity range.
_base_ = "./_base_.py"
vocabulary = "cocostuff"
images = dict(source="data/coco/val2017")
out = "runs/tags_cocostuff"

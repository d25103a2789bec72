# The same run with GCLIP's class probabilities in place of Grad-CAM and affinity; tags, CRF and files as before.
_base_ = "./coco2017.py"
method = "gclip"  # any strategy of wsss.dense, or a strategy file
dense = dict(logit_scale=40.0)  # fields of DenseConfig; options=dict(...) are the strategy's own
out = "runs/coco2017_gclip"

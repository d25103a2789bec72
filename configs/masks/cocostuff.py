# COCO-Stuff: 171 classes and no background; class c is label c.
_base_ = ["../tagging/cocostuff.py", "_base_.py"]
images = dict(source="data/coco/train2017")
work = dict(mask_workers=None, mask_queue=8)  # mask processes (None: one a core), jobs that may wait for each
out = "runs/cocostuff"

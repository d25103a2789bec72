# COCO 2014 training images.
_base_ = ["../tagging/coco2014.py", "_base_.py"]
images = dict(source="data/coco/train2014")
work = dict(mask_workers=None, mask_queue=8)  # mask processes (None: one a core), jobs that may wait for each
out = "runs/coco2014"

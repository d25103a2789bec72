# COCO 2017 training images.
_base_ = ["../tagging/coco2017.py", "_base_.py"]
images = dict(source="data/coco/train2017")
work = dict(mask_workers=None, mask_queue=8)  # mask processes (None: one a core), jobs that may wait for each
out = "runs/coco2017"

# Your own photos and classes: give --images and --classes, or set them here.
_base_ = ["../tagging/custom.py", "_base_.py"]
images = dict(source="photos")
work = dict(mask_workers=None, mask_queue=8)  # mask processes (None: one a core), jobs that may wait for each
out = "runs/custom"

# PASCAL VOC 2012, the segmentation training images: masks to train DeepLab on.
_base_ = ["../tagging/voc2012.py", "_base_.py"]
images = dict(source="data/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt")
work = dict(mask_workers=None, mask_queue=8)  # mask processes (None: one a core), jobs that may wait for each
out = "runs/voc2012"

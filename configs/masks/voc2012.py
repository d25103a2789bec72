# PASCAL VOC 2012, the segmentation training images: masks to train DeepLab on.
_base_ = ["../tagging/voc2012.py", "_base_.py"]
masks = dict(
    affinity=dict(
        first_block=-8,
        last_block=-2,  # blocks 5..11 of 12 (TagCLIP's VOC setting of CLIP-ES)
        box_threshold=0.4,  # of the boxes, relative to the map's peak (CLIP-ES, section 3.4)
    ),
)
images = dict(source="data/VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt")
work = dict(mask_workers=None, mask_queue=8)  # mask processes (None: one per core), jobs that may wait for each
out = "runs/voc2012"

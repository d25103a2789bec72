# PASCAL VOC 2012, the segmentation validation images: published micro F1 0.841.
_base_ = "./_base_.py"
vocabulary = "voc"
images = dict(
    source="data/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
    root="data/VOCdevkit/VOC2012/JPEGImages",
)
out = "runs/tags_voc2012"

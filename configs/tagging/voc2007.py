# PASCAL VOC 2007 test: published mAP 92.8.
_base_ = "./_base_.py"
vocabulary = "voc"
images = dict(
    source="data/VOCdevkit/VOC2007/ImageSets/Main/test.txt",
    root="data/VOCdevkit/VOC2007/JPEGImages",
)
out = "runs/tags_voc2007"

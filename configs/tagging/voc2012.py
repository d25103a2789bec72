# PASCAL VOC 2012, the segmentation validation images: published micro F1 0.841.
_base_ = "./_base_.py"
vocabulary = "voc"
tagging = dict(
    rule=dict(threshold=0.5),  # t of the tags (TagCLIP, arXiv 2312.12828, section "CWR")
    cwr=dict(threshold=0.5),  # t of CWR's candidates (same section)
    dmar=dict(first_block=-4, last_block=-2),  # blocks L-3..L-1, 9..11 of 12 (TagCLIP, section "DMAR")
)
images = dict(
    source="data/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
    root="data/VOCdevkit/VOC2012/JPEGImages",
)
out = "runs/tags_voc2012"

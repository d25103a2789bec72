# Your own photos and classes: give --images and --classes, or set them here.
_base_ = "./_base_.py"
vocabulary = "classes.txt"
# The constants of VOC and COCO in the paper.
tagging = dict(
    rule=dict(threshold=0.5),  # t of the tags (TagCLIP, arXiv 2312.12828, section "CWR")
    cwr=dict(threshold=0.5),  # t of CWR's candidates (same section)
    dmar=dict(first_block=-4, last_block=-2),  # blocks L-3..L-1, 9..11 of 12 (TagCLIP, section "DMAR")
)
images = dict(source="photos")
out = "runs/tags_custom"

# COCO 2014 validation: published mAP 68.8.
_base_ = "./_base_.py"
vocabulary = "coco"
tagging = dict(
    rule=dict(threshold=0.5),  # t of the tags (TagCLIP, arXiv 2312.12828, section "CWR")
    cwr=dict(threshold=0.5),  # t of CWR's candidates (same section)
    dmar=dict(first_block=-4, last_block=-2),  # blocks L-3..L-1, 9..11 of 12 (TagCLIP, section "DMAR")
)
images = dict(source="data/coco/val2014")
out = "runs/tags_coco2014"

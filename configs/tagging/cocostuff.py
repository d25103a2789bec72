# COCO-Stuff, 171 classes: published micro F1 0.467.
_base_ = "./_base_.py"
vocabulary = "cocostuff"
# With 171 classes TagCLIP lowers both thresholds and averages the attention of all blocks but the last.
tagging = dict(
    rule=dict(threshold=0.1),  # t of the tags (TagCLIP, arXiv 2312.12828, section "CWR")
    cwr=dict(threshold=0.1),  # t of CWR's candidates (same section)
    dmar=dict(first_block=1, last_block=-2),  # blocks 1..L-1, 1..11 of 12 (TagCLIP, section "DMAR")
)
images = dict(source="data/coco/val2017")
out = "runs/tags_cocostuff"

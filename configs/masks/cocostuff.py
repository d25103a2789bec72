# COCO-Stuff: 171 classes and no background; class c is label c.
_base_ = ["../tagging/cocostuff.py", "_base_.py"]
masks = dict(
    affinity=dict(
        first_block=-8,
        last_block=-1,  # blocks 5..12, the last 8 of 12 (CLIP-ES, arXiv 2212.09506, section 3.4)
        box_threshold=0.7,  # of the boxes, relative to the map's peak (CLIP-ES, section 3.4)
    ),
)
images = dict(source="data/coco/train2017")
work = dict(mask_workers=None, mask_queue=8)  # mask processes (None: one per core), jobs that may wait for each
out = "runs/cocostuff"

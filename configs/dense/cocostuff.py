# COCO-Stuff 164k val, 171 classes (5000 images).
_base_ = "./_base_/model.py"

model = dict(
    classes="{{ fileDirname }}/classes/cocostuff.yaml",
    dense=dict(
        short_side=448,
        # TagCLIP's constants for COCO-Stuff, for vocabulary="tags" (arXiv 2312.12828, sections "DMAR" and "CWR").
        tagging=dict(rule=dict(threshold=0.1), cwr=dict(threshold=0.1), dmar=dict(first_block=1, last_block=-2)),
    ),
)

test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="COCOStuffDataset",
        data_root="data/coco_stuff164k",
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
        pipeline={{_base_.test_pipeline}},
        test_mode=True,
    ),
)

# PASCAL Context val, 59 classes; background pixels are not scored.
_base_ = "./_base_/model.py"

model = dict(
    classes="{{ fileDirname }}/classes/context59.yaml",
    dense=dict(),
)

test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PascalContextDataset59",
        data_root="data/VOCdevkit/VOC2010",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
        ann_file="ImageSets/SegmentationContext/val.txt",
        pipeline={{_base_.test_pipeline}},
        test_mode=True,
    ),
)

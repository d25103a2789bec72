# PASCAL Context val, 59 classes and background (5104 images).
_base_ = "./_base_/model.py"

model = dict(
    classes="{{ fileDirname }}/classes/context60.yaml",
    dense=dict(background_threshold=0.1),
)

test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PascalContextDataset",
        data_root="data/VOCdevkit/VOC2010",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
        ann_file="ImageSets/SegmentationContext/val.txt",
        pipeline={{_base_.test_pipeline}},
        test_mode=True,
    ),
)

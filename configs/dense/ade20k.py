# ADE20K val, 150 classes (2000 images).
_base_ = "./_base_/model.py"

model = dict(
    classes="{{ fileDirname }}/classes/ade20k.yaml",
    dense=dict(short_side=448),
)

test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ADE20KDataset",
        data_root="data/ade/ADEChallengeData2016",
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline={{_base_.test_pipeline}},
        test_mode=True,
    ),
)

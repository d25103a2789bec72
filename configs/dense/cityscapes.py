# Cityscapes val, 19 classes (500 images of 2048 x 1024).
_base_ = "./_base_/model.py"

model = dict(
    classes="{{ fileDirname }}/classes/cityscapes.yaml",
    dense=dict(short_side=560),
)

test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CityscapesDataset",
        data_root="data/cityscapes",
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline={{_base_.test_pipeline}},
        test_mode=True,
    ),
)

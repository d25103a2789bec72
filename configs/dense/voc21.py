# PASCAL VOC 2012 val, 20 classes and background (1449 images).
_base_ = "./_base_/model.py"

model = dict(
    classes="{{ fileDirname }}/classes/voc21.yaml",
    dense=dict(background_threshold=0.1),
)

test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PascalVOCDataset",
        data_root="data/VOCdevkit/VOC2012",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/val.txt",
        pipeline={{_base_.test_pipeline}},
        test_mode=True,
    ),
)

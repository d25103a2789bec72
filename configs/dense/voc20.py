# PASCAL VOC 2012 val, 20 classes; background pixels are not scored.
_base_ = "./_base_/model.py"

model = dict(
    classes="{{ fileDirname }}/classes/voc20.yaml",
    dense=dict(),
)
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

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
        # Classes left out of the data set's own list, here the background, are ignored.
        metainfo=dict(classes=CLASSES),
        pipeline={{_base_.test_pipeline}},
        test_mode=True,
    ),
)

"""Pseudo masks in, 512 px crops out; the command line's --run and --val set the two folders."""

# What differs between data sets: classes, run folder, validation folder, iterations. Each
# configs/segmentation/<model>_<data set>.py takes one of these; None for classes: those of the run.
data_sets = dict(
    voc=dict(vocabulary="voc", run="runs/voc2012", val="data/VOCdevkit/VOC2012", iterations=20000),
    coco=dict(vocabulary="coco", run="runs/coco2014", val="data/coco2014_voc", iterations=80000),
    cocostuff=dict(vocabulary="cocostuff", run="runs/cocostuff", val="data/cocostuff_voc", iterations=80000),
    custom=dict(vocabulary=None, run="runs/custom", val="data/custom", iterations=20000),
)

crop_size = (512, 512)
meta_keys = (
    "img_path", "seg_map_path", "sample_id", "image_weight", "ori_shape", "img_shape", "pad_shape", "scale_factor",
    "flip", "flip_direction", "reduce_zero_label",
)
train_pipeline = [
    dict(type="LoadUprightImage"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs", meta_keys=meta_keys),
]
test_pipeline = [
    dict(type="LoadUprightImage"),
    dict(type="Resize", scale=(2048, 512), keep_ratio=True),
    # After Resize: the ground truth keeps its size, predictions are brought back to it.
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="PseudoMaskDataset",
        data_root="runs/voc2012",
        vocabulary=None,
        image_weight=dict(rule="none", power=1.0, floor=0.1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="PseudoMaskDataset",
        data_root="data/VOCdevkit/VOC2012",
        layout="voc",
        split="val",
        vocabulary=None,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator

# Multi-scale and flip, for mmseg's test-time augmentation and for `tagclip segment --tta`.
multi_scale_test = dict(scales=(0.5, 0.75, 1.0, 1.25, 1.5), flip=True)
tta_pipeline = [
    dict(type="LoadUprightImage"),
    dict(
        type="TestTimeAug",
        transforms=[
            [dict(type="Resize", scale_factor=ratio, keep_ratio=True) for ratio in multi_scale_test["scales"]],
            [
                dict(type="RandomFlip", prob=0.0, direction="horizontal"),
                dict(type="RandomFlip", prob=1.0, direction="horizontal"),
            ],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]

# Classes weigh (share of the training masks' pixels) ** -power in the loss; 0: all the same.
class_balance = dict(power=0.0)

# Rounds of self-training after the first: predictions, held to each image's tags, become the next masks. The run's own
# class maps may share in them (maps_share, 0 to 1), and its CRF may refine them.
self_training = dict(rounds=0, confidence=0.8, restrict_to_tags=True, maps_share=0.0, refine=False)

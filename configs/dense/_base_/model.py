# Training-free segmentation with a frozen CLIP. Every field of `dense` is documented at DenseConfig.
default_scope = "mmseg"
custom_imports = dict(imports=["wsss.mmseg_plugin"], allow_failed_imports=False)

model = dict(
    type="ClipSegmentor",
    clip=dict(path_or_name="ViT-B-16", pretrained="openai"),
    classes=None,  # each data set's config names its file
    dense=dict(
        strategy="gclip",
        options=dict(),
        vocabulary="all",  # "tags" restricts each image to TagCLIP's tags, "labels" to its true classes
        mode="slide",
        crop=224,
        stride=112,
        short_side=336,
        logit_scale=40.0,
        background_threshold=0.0,
        tagging=dict(  # of the tagger for vocabulary="tags": TagCLIP's constants for VOC and COCO
            rule=dict(threshold=0.5), cwr=dict(threshold=0.5), dmar=dict(first_block=-4, last_block=-2)
        ),
        pamr=None,  # dict() refines with PAMR
    ),
)

test_pipeline = [
    # The masks of these data sets lie as the file does, whatever its EXIF orientation says.
    dict(type="LoadUprightImage", apply_exif=False),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
test_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_cfg = dict(type="TestLoop")

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
log_level = "INFO"
work_dir = "work_dirs/dense"

"""DeepLabV2 (arXiv 1606.00915), ResNet-101: the recipe of the weakly supervised literature.

321 px crops, batch 10, SGD 2.5e-4 with the head at 10 times (its biases at 20 times) that rate, polynomial decay to 0
over 20 000 iterations, batch statistics frozen, tested on the original size with several scales and flips.
"""

_base_ = "./deeplabv3_r50.py"

crop_size = (321, 321)
frozen_norm = dict(type="BN", requires_grad=False)
model = dict(
    data_preprocessor=dict(size=crop_size),
    pretrained="torchvision://resnet101",
    backbone=dict(type="ResNet", depth=101, norm_cfg=frozen_norm, norm_eval=True, contract_dilation=False),
    decode_head=dict(
        _delete_=True,
        type="DeepLabV2Head",
        in_channels=2048,
        in_index=3,
        dilations=(6, 12, 18, 24),
        num_classes=21,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, avg_non_ignore=True, loss_weight=1.0),
    ),
    auxiliary_head=None,
)
train_pipeline = [
    dict(type="LoadUprightImage"),
    dict(type="LoadAnnotations"),
    dict(
        type="RandomChoice",
        transforms=[[dict(type="Resize", scale_factor=ratio)] for ratio in (0.5, 0.75, 1.0, 1.25, 1.5)],
    ),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs", meta_keys=_base_.meta_keys),
]
test_pipeline = [dict(type="LoadUprightImage"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
train_dataloader = dict(batch_size=10, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(lr=2.5e-4),
    paramwise_cfg=dict(
        custom_keys={
            "decode_head": dict(lr_mult=10.0),
            **{f"decode_head.branches.{branch}.bias": dict(lr_mult=20.0, decay_mult=0.0) for branch in range(4)},
        }
    ),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=20000, by_epoch=False)]

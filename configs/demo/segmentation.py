"""DeepLabV3+ on demo scenes at half their size, for two CPU cores (tools/demo.sh).

Its ResNet-18 has half the usual width and has learned to name drawn objects that are not VOC's
(wsss/demo/backbone.py), as a photo's backbone has learned ImageNet.
"""

_base_ = "../segmentation/deeplabv3plus_r18_voc.py"

crop_size = (160, 160)
data_preprocessor = dict(size=crop_size)
model = dict(
    pretrained=__import__("wsss.segmentation.bases", fromlist=["DEMO_BACKBONE"]).DEMO_BACKBONE,
    data_preprocessor=data_preprocessor,
    backbone=dict(stem_channels=32, base_channels=32, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    decode_head=dict(c1_in_channels=32, c1_channels=12, in_channels=256, channels=96, dilations=(1, 3, 6, 9)),
    auxiliary_head=dict(in_channels=128, channels=32),
)
# The recipe's own steps, at this size.
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=(224, 160), ratio_range=(0.75, 1.25))
train_pipeline[3].update(crop_size=crop_size, cat_max_ratio=0.9)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(224, 160))
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(data_root="runs/demo/run", pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=1, dataset=dict(data_root="runs/demo/held_out", pipeline=test_pipeline))
test_dataloader = val_dataloader
# Validation twice a training, however long.
train_cfg = dict(val_interval=10000)
default_hooks = dict(checkpoint=dict(interval=10000))
# Four fifths of the pixels are background, which a model of doubtful labels falls back on.
class_balance = dict(power=0.25)
# A few hundred iterations: large steps for the head, which starts from nothing, and a tenth of them for the backbone.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=6e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)

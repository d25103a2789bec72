"""DeepLabV3+ R18 on COCO-Stuff, 171 classes without a background."""

_base_ = "./_base_/deeplabv3plus_r18.py"

model = dict(decode_head=dict(num_classes=171), auxiliary_head=dict(num_classes=171))
train_dataloader = dict(dataset=dict(data_root="runs/cocostuff", vocabulary="cocostuff"))
val_dataloader = dict(dataset=dict(data_root="data/cocostuff_voc", vocabulary="cocostuff"))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=80000, val_interval=8000)
param_scheduler = [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=80000, by_epoch=False)]

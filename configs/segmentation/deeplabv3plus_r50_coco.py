"""DeepLabV3+ R50 on COCO, 80 classes and background."""

_base_ = "./_base_/deeplabv3plus_r50.py"

model = dict(decode_head=dict(num_classes=81), auxiliary_head=dict(num_classes=81))
train_dataloader = dict(dataset=dict(data_root="runs/coco2014", vocabulary="coco"))
val_dataloader = dict(dataset=dict(data_root="data/coco2014_voc", vocabulary="coco"))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=80000, val_interval=8000)
param_scheduler = [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=80000, by_epoch=False)]

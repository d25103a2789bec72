"""DeepLabV3+ R101 on PASCAL VOC 2012, 20 classes and background."""

_base_ = "./_base_/deeplabv3plus_r101.py"

model = dict(decode_head=dict(num_classes=21), auxiliary_head=dict(num_classes=21))
train_dataloader = dict(dataset=dict(data_root="runs/voc2012", vocabulary="voc"))
val_dataloader = dict(dataset=dict(data_root="data/VOCdevkit/VOC2012", vocabulary="voc"))
test_dataloader = val_dataloader

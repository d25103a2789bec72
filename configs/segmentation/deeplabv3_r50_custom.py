"""DeepLabV3 R50 on your own classes; the run folder or --classes tells how many."""

_base_ = "./_base_/deeplabv3_r50.py"

train_dataloader = dict(dataset=dict(data_root="runs/custom", vocabulary=None))
val_dataloader = dict(dataset=dict(data_root="data/custom", vocabulary=None))
test_dataloader = val_dataloader

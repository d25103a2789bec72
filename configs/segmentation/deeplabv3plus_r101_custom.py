"""DeepLabV3+ R101 on your own classes; the run folder or --classes tells how many."""

_base_ = "./_base_/deeplabv3plus_r101.py"

train_dataloader = dict(dataset=dict(data_root="runs/custom", vocabulary=None))
val_dataloader = dict(dataset=dict(data_root="data/custom", vocabulary=None))
test_dataloader = val_dataloader

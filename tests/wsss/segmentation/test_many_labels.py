"""What a config of more than 255 labels ignores, and that one of fewer stays as it is."""

import copy

import pytest
from mmengine.config import Config

from tagclip.errors import UsageError
from wsss.segmentation.many_labels import ignore_16_bit

PARTS = [
    (dict(type="RandomCrop", crop_size=(4, 4)), dict(type="RandomCrop", crop_size=(4, 4), ignore_index=65535)),
    (dict(type="RandomRotate", prob=1, degree=9), dict(type="RandomRotate", prob=1, degree=9, seg_pad_val=65535)),
    (dict(type="Pad", size=(4, 4)), dict(type="Pad", size=(4, 4), pad_val=dict(img=0, seg=65535))),
    (dict(type="Pad", pad_val=7), dict(type="Pad", pad_val=dict(img=7, seg=65535))),
    (dict(type="Pad", pad_val=dict(img=9, seg=255)), dict(type="Pad", pad_val=dict(img=9, seg=65535))),
    (dict(type="LoadAnnotations", reduce_zero_label=None), dict(type="LoadLabelMap")),
    (dict(type="IoUMetric", iou_metrics=["mIoU"]), dict(type="IoUMetric", iou_metrics=["mIoU"], ignore_index=65535)),
    (dict(type="SegDataPreProcessor", size=(4, 4)), dict(type="SegDataPreProcessor", size=(4, 4), seg_pad_val=65535)),
    (
        dict(type="FCNHead", loss_decode=[dict(type="DiceLoss"), dict(type="LovaszLoss")]),
        dict(type="FCNHead", loss_decode=[dict(type="DiceLoss", ignore_index=65535), dict(type="LovaszLoss")],
             ignore_index=65535),
    ),
    (dict(type="PhotoMetricDistortion", brightness=255), dict(type="PhotoMetricDistortion", brightness=255)),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), PARTS)
def test_parts(given, expected):
    cfg = Config(dict(train_pipeline=[dict(type="RandomChoice", transforms=[[given]])]))
    before = copy.deepcopy(cfg.to_dict())
    ignore_16_bit(cfg.train_pipeline, 255)
    assert cfg.to_dict() == before
    ignore_16_bit(cfg.train_pipeline, 256)
    assert cfg.to_dict()["train_pipeline"][0]["transforms"][0][0] == expected


def test_too_many_labels():
    with pytest.raises(UsageError, match="at most 65535"):
        ignore_16_bit({}, 65536)

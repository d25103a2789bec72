"""Every config reads masks by our loader; what one of more than 255 labels ignores."""

import copy

import pytest
from mmengine.config import Config

from tagclip.errors import UsageError
from wsss.segmentation.many_labels import settle_labels

PARTS = [
    ({"type": "RandomCrop", "crop_size": (4, 4)}, {"type": "RandomCrop", "crop_size": (4, 4), "ignore_index": 65535}),
    ({"type": "RandomRotate", "degree": 9}, {"type": "RandomRotate", "degree": 9, "seg_pad_val": 65535}),
    ({"type": "Pad", "size": (4, 4)}, {"type": "Pad", "size": (4, 4), "pad_val": {"img": 0, "seg": 65535}}),
    ({"type": "Pad", "pad_val": 7}, {"type": "Pad", "pad_val": {"img": 7, "seg": 65535}}),
    ({"type": "Pad", "pad_val": {"img": 9, "seg": 255}}, {"type": "Pad", "pad_val": {"img": 9, "seg": 65535}}),
    ({"type": "LoadAnnotations", "reduce_zero_label": None}, {"type": "LoadLabelMap", "ignore_index": 65535}),
    ({"type": "IoUMetric", "beta": 1}, {"type": "IoUMetric", "beta": 1, "ignore_index": 65535}),
    ({"type": "SegDataPreProcessor", "std": 1}, {"type": "SegDataPreProcessor", "std": 1, "seg_pad_val": 65535}),
    (
        {"type": "FCNHead", "loss_decode": [{"type": "DiceLoss"}, {"type": "LovaszLoss"}]},
        {"type": "FCNHead", "loss_decode": [{"type": "DiceLoss", "ignore_index": 65535}, {"type": "LovaszLoss"}],
             "ignore_index": 65535},
    ),
    ({"type": "PhotoMetricDistortion", "brightness": 255}, {"type": "PhotoMetricDistortion", "brightness": 255}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), PARTS)
def test_parts(given, expected):
    cfg = Config({"train_pipeline": [{"type": "RandomChoice", "transforms": [[given]]}]})
    before = copy.deepcopy(cfg.to_dict())
    settle_labels(cfg.train_pipeline, 255)
    if given["type"] == "LoadAnnotations":
        assert cfg.to_dict()["train_pipeline"][0]["transforms"][0][0] == {"type": "LoadLabelMap", "ignore_index": 255}
        cfg = Config(copy.deepcopy(before))
    assert cfg.to_dict() == before
    settle_labels(cfg.train_pipeline, 256)
    assert cfg.to_dict()["train_pipeline"][0]["transforms"][0][0] == expected


def test_too_many_labels():
    with pytest.raises(UsageError, match="at most 65535"):
        settle_labels({}, 65536)

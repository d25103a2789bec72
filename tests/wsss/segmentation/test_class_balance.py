"""Class weights from the pixels of the training masks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.models.losses import CrossEntropyLoss

from tagclip.errors import UsageError
from tests.wsss.segmentation import squares
from wsss.segmentation.class_balance import ClassBalance
from wsss.segmentation.preflight import PreflightConfig
from wsss.segmentation.train_settings import TrainRequest
from wsss.segmentation.training import train_segmentor


def config(**loss):
    heads = {
        "decode_head": {"num_classes": 3, "loss_decode": {"avg_non_ignore": True, **loss}},
        "auxiliary_head": [{"num_classes": 3, "loss_decode": [{"avg_non_ignore": True}]}],
    }
    return Config({"model": heads})


def counted(*pixels):
    return np.array([*pixels, *[0] * (255 - len(pixels)), 1000], np.int64)


def test_weights():
    assert ClassBalance(0.5).weights([0, 0]) == [1, 1]
    assert ClassBalance(0.0).weights([90, 10]) == [1, 1]
    # Shares 0.8, 0.2, 0: 1 / sqrt(0.8), 1 / sqrt(0.2), mean sqrt(0.8) + sqrt(0.2).
    mean = 0.8**0.5 + 0.2**0.5
    assert ClassBalance(0.5).weights([80, 20, 0]) == pytest.approx([0.8**-0.5 / mean, 0.2**-0.5 / mean, 1], abs=1e-4)
    every_class_the_same_say = np.array(ClassBalance(1.0).weights([70, 20, 10])) * [70, 20, 10]
    assert every_class_the_same_say == pytest.approx([100 / 3] * 3, rel=1e-3)


def test_every_loss_gets_them_and_takes_ignored_pixels():
    cfg = config()
    ClassBalance(0.5).apply(cfg, counted(80, 20, 5))
    weights = ClassBalance(0.5).weights([80, 20, 5])
    losses = [cfg.model.decode_head.loss_decode, *cfg.model.auxiliary_head[0].loss_decode]
    assert [loss.class_weight for loss in losses] == [weights, weights]
    labels = torch.tensor([[[0, 255], [2, 1]]])
    scores = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = CrossEntropyLoss(**losses[0])(scores, labels, ignore_index=255)
    expected = torch.nn.functional.cross_entropy(scores, labels, torch.tensor(weights), ignore_index=255)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_power_zero_changes_nothing():
    cfg = config()
    ClassBalance.of(cfg).apply(cfg, counted(80, 20, 5))
    assert cfg.to_dict() == config().to_dict()


def test_wrong_settings():
    for values in ({"power": 2.0}, {"power": "much"}):
        with pytest.raises(UsageError, match="class_balance power"):
            ClassBalance.of(Config({"class_balance": values}))
    with pytest.raises(UsageError, match="class_balance in the config"):
        ClassBalance.of(Config({"class_balance": {"strength": 1}}))
    with pytest.raises(UsageError, match="own class_weight"):
        ClassBalance(0.5).apply(config(class_weight=[1, 2, 3]), counted(80, 20, 5))
    with pytest.raises(UsageError, match="headers-only"):
        ClassBalance(0.5).apply(config(), np.zeros(256, np.int64))


def test_a_training_and_its_rounds_and_truth_have_them(config_file, folders, tmp_path):
    truth = squares.voc_folder(tmp_path / "truth", count=1)
    for seed in range(6):
        squares.write_pair(truth / "JPEGImages", truth / "SegmentationClass", f"{'ab'[seed % 2]}/s{seed}", seed)
    work = tmp_path / "work"
    asked = TrainRequest(
        config=config_file,
        run=folders / "run",
        val=folders / "val",
        work_dir=work,
        iterations=1,
        rounds=1,
        ground_truth=truth,
        options={"class_balance.power": 0.5, "self_training.confidence": None},
    )
    train_segmentor(asked)
    weights = [
        json.loads((work / part / "training.json").read_text())["model.decode_head.loss_decode.class_weight"]
        for part in ("", "round1", "ground_truth")
    ]
    assert weights[0] == weights[1] == weights[2]  # the truth's masks are the same here
    first = json.loads(weights[0])
    assert len(first) == len(squares.CLASSES) + 1
    assert first[0] == min(first) < 1
    with pytest.raises(UsageError, match="headers-only"):
        train_segmentor(replace(asked, work_dir=tmp_path / "other", preflight=PreflightConfig(ids=False)))

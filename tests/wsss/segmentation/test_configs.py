"""The shipped configs: they inherit from the installed mmseg, fit their vocabularies, and build."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from tagclip.errors import UsageError
from tests.wsss.segmentation import squares
from wsss.files.sources import load_vocabulary
from wsss.segmentation.bases import mmseg_config

MODELS_OF = ("deeplabv3plus_r18", "deeplabv3plus_r50", "deeplabv3plus_r101", "deeplabv3_r50", "deeplabv2_r101")
NAMES = [f"{model}_{name}" for model in MODELS_OF for name in ("voc", "coco", "cocostuff", "custom")]


def read(name: str) -> Config:
    return Config.fromfile(str(squares.CONFIGS / f"{name}.py"))


def test_every_model_exists_for_every_vocabulary():
    assert sorted(path.stem for path in squares.CONFIGS.glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_config_fits_its_vocabulary(name):
    cfg = read(name)
    assert cfg.custom_imports == {"imports": ["wsss.mmseg_plugin"], "allow_failed_imports": False}
    assert cfg.default_scope == "mmseg"
    assert cfg.param_scheduler[0]["end"] == cfg.train_cfg.max_iters
    assert cfg.val_dataloader.dataset.data_root == cfg.test_dataloader.dataset.data_root
    assert cfg.val_dataloader.dataset.pipeline == cfg.test_pipeline
    assert cfg.train_dataloader.dataset.pipeline[-1]["meta_keys"].count("image_weight") == 1
    assert tuple(cfg.model.data_preprocessor.size) == tuple(cfg.crop_size)
    vocabulary = cfg.train_dataloader.dataset.vocabulary
    assert vocabulary == cfg.val_dataloader.dataset.vocabulary
    assert (vocabulary is None) == name.endswith("custom")
    if vocabulary is not None:
        heads = [cfg.model.decode_head, *([cfg.model.auxiliary_head] if cfg.model.auxiliary_head else [])]
        assert {head.num_classes for head in heads} == {len(load_vocabulary(vocabulary).label_names)}


def test_deeplabv2_follows_the_papers_recipe():
    cfg = read("deeplabv2_r101_voc")
    assert cfg.crop_size == (321, 321)
    assert cfg.train_dataloader.batch_size == 10
    assert (cfg.optim_wrapper.optimizer.lr, cfg.train_cfg.max_iters) == (2.5e-4, 20000)
    assert cfg.model.decode_head.dilations == (6, 12, 18, 24)
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys["decode_head"].lr_mult == 10
    assert keys["decode_head.branches.3.bias"].lr_mult == 20
    assert [step["type"] for step in cfg.test_pipeline] == ["LoadUprightImage", "LoadAnnotations", "PackSegInputs"]


@pytest.mark.parametrize("name", ["deeplabv3plus_r18_voc", "deeplabv2_r101_voc"])
def test_models_build_and_answer(name):
    cfg = read(name)
    init_default_scope("mmseg")
    cfg.model.pretrained = None
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        logits = model.encode_decode(torch.zeros(1, 3, 48, 64), [{"img_shape": (48, 64)}])
    assert logits.shape == (1, 21, 48, 64)


def test_unknown_base():
    with pytest.raises(UsageError, match=r"ships no config nothing\.py"):
        mmseg_config("nothing.py")

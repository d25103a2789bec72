"""Wherever a model runs, float32 is float32, whatever precision the user has chosen; the choice is back afterwards."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tagclip.clip import wrap_clip
from tagclip.tagger import TagCLIP
from tests import clip_models
from tests.tagclip.test_precision import effective, restore_defaults, settings
from tests.wsss.runs import VOCABULARY, complete, draw_images
from wsss.config import MaskConfig
from wsss.dense.comparison import CompareConfig, Comparison
from wsss.dense.dense_config import DenseConfig
from wsss.dense.diagnostics import diagnose
from wsss.dense.inference import DenseSegmenter
from wsss.dense.strategy_source import StrategySource
from wsss.maps.gradcam_source import GradCamSource
from wsss.masks.generator import MaskGenerator
from wsss.pipeline.image_labeler import ImageLabeler
from wsss.segmentation.checkpoints import LoadedSegmentor
from wsss.segmentation.predictor import Predictor

PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "mv", "dot", "convolution", "convolution_backward", "mkldnn_convolution",
            "conv2d", "linear", "matmul",
            "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math")  # fmt: skip
ONE = ("a photo of a {}.",)
RGB = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)


class Watch(TorchDispatchMode):
    """Notes every product and convolution that could round its operands, backward passes included."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in PRODUCTS:
            self.seen.setdefault(name, set()).update(effective())
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def clip():
    return wrap_clip(clip_models.make_model(clip_models.B32))


def dense(clip, **values):
    return DenseSegmenter(clip, VOCABULARY, DenseConfig.from_dict({"templates": ONE, **values}))


class Model(torch.nn.Module):
    """The little of an mmseg model that a predictor needs."""

    align_corners, test_cfg = False, None

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.data_preprocessor = lambda data, training: {"inputs": torch.stack(data["inputs"]).float()}

    def inference(self, batch, metas):
        return self.layer(batch)


def predictor():
    return Predictor(LoadedSegmentor(Model(), tuple("abcd"), [[0, 0, 0]] * 4, [], {}))


def compared(clip):
    config = CompareConfig(("clip", "cam"), dense=DenseConfig(templates=ONE), timed_images=0)
    return Comparison(clip, VOCABULARY, config)


PLACES = {
    "tagger": lambda clip, folder: TagCLIP(clip, VOCABULARY)(RGB),
    "image labeler": lambda clip, folder: ImageLabeler(clip, VOCABULARY)(RGB),
    "run": lambda clip, folder: complete(clip, draw_images(folder / "images")[0].parent, folder / "run"),
    "Grad-CAM": lambda clip, folder: MaskGenerator(clip, VOCABULARY)(RGB, "cat"),
    "Grad-CAM in views": lambda clip, folder: MaskGenerator(
        GradCamSource(clip, VOCABULARY, config=MaskConfig.from_dict({"views": {"scales": [1.0, 0.5], "flip": True}}))
    )(RGB, "cat"),
    "strategy": lambda clip, folder: MaskGenerator(
        StrategySource(clip, VOCABULARY, dense=DenseConfig(strategy="sclip", templates=ONE))
    )(RGB, "cat"),
    "dense": lambda clip, folder: dense(clip, strategy="naclip")(RGB),
    "dense in windows": lambda clip, folder: dense(clip, strategy="gclip", mode="slide", crop=64, stride=32)(RGB),
    "dense with tags": lambda clip, folder: dense(clip, vocabulary="tags", tagging={"templates": ONE})(RGB),
    "dense with PAMR": lambda clip, folder: dense(clip, pamr={"iterations": 1})(RGB),
    "dense probabilities": lambda clip, folder: dense(clip).probabilities(RGB),
    "comparison": lambda clip, folder: compared(clip).score(RGB, np.ones(RGB.shape[:2], np.uint8)),
    "diagnosis": lambda clip, folder: diagnose(clip, torch.zeros(3, 64, 64)),
    "segmentor": lambda clip, folder: predictor().labels(RGB),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_product_is_exact_and_the_users_choice_is_kept(place, clip, tmp_path):
    torch.set_float32_matmul_precision("medium")
    before = settings()
    try:
        with Watch() as watch:
            PLACES[place](clip, tmp_path)
        assert watch.seen
        assert {name: found for name, found in watch.seen.items() if found} == {}
        assert settings() == before
    finally:
        restore_defaults()


def test_the_watch_sees_what_is_not_exact():
    torch.set_float32_matmul_precision("medium")
    try:
        with Watch() as watch:
            torch.ones(2, 2) @ torch.ones(2, 2)
        assert watch.seen["mm"]
    finally:
        restore_defaults()

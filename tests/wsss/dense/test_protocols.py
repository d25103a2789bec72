"""Each method's published protocol is one config per data set: every value, and that it can be run."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from tagclip.clip import prompts
from tagclip.vocabulary import Vocabulary
from tests.golden_more import more_arrays, more_cases
from wsss.configs import list_configs, read_config
from wsss.dense.dataset_scores import adapt
from wsss.dense.dense_config import DenseConfig
from wsss.dense.strategy import get_strategy
from wsss.mmseg_plugin import ResizeCentreCrop

SETS = ("voc21", "voc20", "context60", "context59", "coco_object", "cocostuff", "cityscapes", "ade20k")
WITH_BACKGROUND = ("voc21", "context60", "coco_object")
# ResCLIP, per set: pixel threshold, label threshold, tau_r, lambda_r, tau_s, lambda_s.
RESCLIP = {
    "voc21": (0.1, 0.50, 2.0, 0.3, 2.2, 0.7),
    "voc20": (0.0, 0.10, 2.0, 0.6, 2.1, 0.6),
    "context59": (0.0, 0.25, 2.0, 0.4, 1.8, 0.7),
    "context60": (0.1, 0.30, 2.0, 0.3, 1.8, 0.7),
    "coco_object": (0.1, 0.11, 2.0, 0.4, 1.8, 0.7),
    "cocostuff": (0.0, 0.11, 2.0, 0.4, 1.8, 0.7),
    "ade20k": (0.0, 0.25, 2.0, 0.3, 2.1, 0.7),
    "cityscapes": (0.0, 0.10, 2.0, 0.2, 2.1, 0.6),
}
SCCLIP_SCALE = {"voc21": 50.0, "coco_object": 55.0}
SCCLIP_THRESHOLD = {"voc21": 0.15, "context60": 0.15, "coco_object": 0.35}


def dense_of(method, name):
    config = read_config(f"dense/{method}/{name}")
    return config, DenseConfig.from_dict(config.model.dense.to_dict())


def test_every_method_has_all_eight():
    names = {name for name in list_configs("dense") if name.count("/") == 2}
    methods = ("scclip", "resclip", "cliptrase", "pearl")
    assert names == {f"dense/{method}/{name}" for method in methods for name in SETS}


@pytest.mark.parametrize("method", ["scclip", "resclip", "cliptrase", "pearl"])
@pytest.mark.parametrize("name", SETS)
def test_what_all_have_in_common(method, name):
    config, dense = dense_of(method, name)
    assert (dense.strategy, dense.preset, dense.vocabulary) == (method, "reference", "all")
    assert dense.templates == prompts.IMAGENET_TEMPLATES
    assert len(dense.templates) == 80
    assert dense.pamr is None
    vocabulary = Vocabulary.load(config.model.classes)
    assert vocabulary.has_background == (name in WITH_BACKGROUND)
    if method != "cliptrase":
        assert dense.short_side == (560 if name == "cityscapes" else 336)
    base = read_config(f"dense/{name}").test_dataloader.dataset
    assert config.test_dataloader.dataset.type == base.type
    assert config.test_dataloader.dataset.data_prefix == base.data_prefix
    get_strategy(dense.strategy, dense.options, dense.preset).check(12)


@pytest.mark.parametrize("name", SETS)
def test_scclip(name):
    _, dense = dense_of("scclip", name)
    assert (dense.mode, dense.crop, dense.stride) == ("slide", 224, 112)
    assert dense.logit_scale == SCCLIP_SCALE.get(name, 40.0)
    assert dense.background_threshold == SCCLIP_THRESHOLD.get(name, 0.0)
    assert dense.area_threshold == (0.1 if name == "voc21" else 0.0)


@pytest.mark.parametrize("name", SETS)
def test_resclip(name):
    _, dense = dense_of("resclip", name)
    whole = name in ("voc21", "voc20")
    assert dense.mode == ("whole" if whole else "slide")
    options = get_strategy(dense.strategy, dense.options, dense.preset).options
    told = options.feedback
    found = (dense.background_threshold, told.threshold, options.rcs_scale, options.rcs_weight, told.scale, told.weight)
    assert found == RESCLIP[name]
    assert dense.logit_scale == told.logit_scale == 40.0
    assert (told.path_check, told.half_precision, told.doubtful_is_first) == ("code", True, True)


@pytest.mark.parametrize("name", SETS)
def test_pearl(name):
    _, dense = dense_of("pearl", name)
    assert dense.mode == ("whole" if name in ("voc21", "voc20") else "slide")
    assert dense.options == {"alpha": 0.3 if name in ("ade20k", "cityscapes") else 0.08}
    assert dense.propagation.grid == (224 if name == "cityscapes" else 80)
    assert dense.propagation.agreement == "diagonal"
    assert dense.background_threshold == (0.1 if name in WITH_BACKGROUND else 0.0)


@pytest.mark.parametrize("name", SETS)
def test_cliptrase(name):
    config, dense = dense_of("cliptrase", name)
    options = get_strategy(dense.strategy, dense.options, dense.preset).options
    assert (options.decision, options.eps, options.min_samples) == ("vote", 1.1, 7)
    assert options.class_prior == (name == "voc20")
    assert (dense.mode, dense.short_side, dense.background_threshold) == ("whole", None, 0.0)
    steps = [step.type for step in config.test_dataloader.dataset.pipeline]
    assert steps.index("LoadAnnotations") < steps.index("ResizeCentreCrop") < steps.index("PackSegInputs")
    assert ("CocoStuffToObjects" in steps) == (name == "coco_object")


def test_another_method_takes_the_protocol_but_not_the_options():
    config = adapt(read_config("dense/resclip/voc21"), dense={"strategy": "sclip"})
    assert config.model.dense.options == {}
    assert config.model.dense.background_threshold == 0.1


def test_centre_crop_is_the_recorded_one():
    (case,) = more_cases("cliptrase336_")
    rgb = case.pixels()
    labels = np.arange(rgb.shape[0], dtype=np.uint8)[:, None].repeat(rgb.shape[1], axis=1)
    results = ResizeCentreCrop(336)({"img": rgb, "gt_seg_map": labels, "seg_fields": ["gt_seg_map"]})
    expected = more_arrays(case.name.replace("336_", "336_image_"))["crop"]
    assert np.array_equal(results["img"], expected)
    assert results["ori_shape"] == results["img_shape"] == (336, 336)
    assert results["gt_seg_map"].shape == (336, 336)
    assert np.abs(results["gt_seg_map"][:, 0] - np.arange(336) * 2 / 3).max() <= 1  # row r is row 2 r / 3 of the file


def test_a_protocol_is_scored(golden_model_path, tmp_path):
    from wsss.dense.dataset_scores import build_dataset_and_model, score_dataset

    rng = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(tmp_path / "JPEGImages" / "a.jpg")
    Image.fromarray(rng.integers(0, 21, (60, 90), dtype=np.uint8)).save(tmp_path / "SegmentationClass" / "a.png")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("a\n")
    for method in ("cliptrase", "pearl"):
        config = adapt(
            read_config(f"dense/{method}/voc21"), clip={"path_or_name": str(golden_model_path)},
            dense={"templates": ["a photo of a {}."], "short_side": 64}, data_root=str(tmp_path),
            options={"test_pipeline": []},
        )  # fmt: skip
        assert isinstance(config, Config)
        dataset, model = build_dataset_and_model(config)
        assert 0 <= score_dataset(dataset, model).miou <= 1

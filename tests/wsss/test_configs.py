"""Shipped configs by name, configs of one's own that inherit from them, and the constants of each data set."""

from __future__ import annotations

import ast

import numpy as np
import pytest

from tagclip.config import TagCLIPConfig
from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from wsss import MaskConfig, config_path, dataset_settings
from wsss.configs import config_title, configs_folder, find_config, list_configs, read_config
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import TaggingRunConfig, load_run_config
from wsss.segmentation.train_settings import TrainRequest, resolve_config


def test_names_of_every_kind_and_no_base():
    names = list_configs()
    assert {"dense/voc21", "demo/masks", "segmentation/deeplabv2_r101_voc", "tagging/custom"} <= {*names}
    assert not any("_base_" in name for name in names)
    assert names == sorted(names)
    assert list_configs("masks") == [f"masks/{name}" for name in sorted(CONSTANTS)]


def test_every_config_says_what_it_is_for():
    titles = {name: config_title(name) for name in list_configs()}
    assert titles["tagging/voc2007"] == "PASCAL VOC 2007 test: published mAP 92.8."
    assert titles["segmentation/deeplabv3plus_r18_coco"] == "DeepLabV3+ R18 on COCO, 80 classes and background."
    assert all(len(title) > 20 for title in titles.values())


def test_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = configs_folder() / "masks" / "voc2012.py"
    assert find_config("masks/voc2012") == find_config("masks/voc2012.py") == expected
    own = tmp_path / "own.py"
    own.write_text("a = 1")
    assert find_config(own) == own
    assert read_config("own.py").a == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("voc2012", r"^--config voc2012: neither a file nor .* did you mean masks/voc2012 or tagging/voc2012\?$"),
        ("configs/masks/voc2012.py", "did you mean masks/voc2012"),
        ("masks/vok2012", "did you mean masks/voc2012"),
        ("segmentation/deeplabv3plus_r18", "did you mean segmentation/deeplabv3plus_r18_"),
        ("x", "`tagclip configs` lists those that ship"),
        ("", "`tagclip configs` lists"),
        ("../configs/masks/voc2012", "did you mean masks/voc2012"),
        ("masks", "neither a file nor a shipped config"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        find_config(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = (", "SyntaxError"),
        ("a = 1 / 0", "ZeroDivisionError: division by zero"),
        ('_base_ = __import__("wsss").config_path("masks/voc")', "_base_ masks/voc: neither a file nor a "),
    ],
)
def test_a_config_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(path)


def test_own_run_config_inherits_a_shipped_one_by_name(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "own.py"
    path.parent.mkdir()
    path.write_text(
        '_base_ = __import__("wsss").config_path("masks/voc2012")\n'
        'vocabulary = "cat,dog"\nmasks = dict(alpha=2.0)\nout = "runs/own"\n'
    )
    monkeypatch.chdir(tmp_path)
    recipe = dataset_settings("deep/own.py")
    assert recipe.vocabulary.names == ("cat", "dog")
    assert (recipe.masks.alpha, recipe.masks.affinity.last_block) == (2.0, -2)
    assert recipe.run.out == "runs/own"


def test_own_training_config_inherits_a_shipped_one_by_name(tmp_path, monkeypatch):
    base = tmp_path / "base.py"
    base.write_text(
        '_base_ = __import__("wsss").config_path("segmentation/deeplabv3plus_r18_voc")\n'
        "train_dataloader = dict(batch_size=6)\n"
    )
    (tmp_path / "own.py").write_text('_base_ = "./base.py"\nclass_balance = dict(power=0.5)\n')
    monkeypatch.chdir(tmp_path)
    cfg, vocabulary = resolve_config(TrainRequest("own.py", run=tmp_path / "run"))
    assert (cfg.train_dataloader.batch_size, cfg.class_balance.power) == (6, 0.5)
    assert (cfg.model.decode_head.num_classes, len(vocabulary)) == (21, 20)
    assert cfg.model.backbone.depth == 18


CONSTANTS = {  # config: t of tags and CWR, blocks of DMAR of 12, blocks of CAA of 12, box threshold
    "voc2012": (0.5, (9, 11), (5, 11), 0.4),
    "coco2014": (0.5, (9, 11), (5, 12), 0.7),
    "coco2017": (0.5, (9, 11), (5, 12), 0.7),
    "cocostuff": (0.1, (1, 11), (5, 12), 0.7),
    "custom": (0.5, (9, 11), (5, 12), 0.4),
}


@pytest.mark.parametrize("preset", ["reference", "default"])
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_of_each_data_set(name, preset):
    options = {"vocabulary": "cat,dog"} if name == "custom" else {}
    recipe = dataset_settings(f"masks/{name}", preset, options)
    threshold, dmar, affinity, box = CONSTANTS[name]
    assert recipe.tagging.rule.threshold == recipe.tagging.cwr.threshold == threshold
    assert recipe.tagging.dmar.block_range(12) == dmar
    assert recipe.masks.affinity.block_range(12) == affinity
    assert recipe.masks.affinity.box_threshold == box
    tagging = load_run_config(f"tagging/{name}", {"preset": preset, **options}, TaggingRunConfig())
    assert tagging.tagger_config(recipe.vocabulary) == recipe.tagging


@pytest.mark.parametrize("name", list_configs("tagging") + list_configs("masks"))
def test_constants_stand_in_the_config_itself(name):
    tree = ast.parse(find_config(name).read_text())
    values = {node.targets[0].id: ast.unparse(node.value) for node in tree.body if isinstance(node, ast.Assign)}
    if name.startswith("tagging/"):
        assert "rule=dict(threshold=" in values["tagging"]
        assert "cwr=dict(threshold=" in values["tagging"]
        assert "dmar=dict(first_block=" in values["tagging"]
    else:
        assert all(word in values["masks"] for word in ("first_block=", "last_block=", "box_threshold="))


def test_nothing_is_chosen_by_the_name_of_a_class_file(tmp_path):
    recipes = []
    for name in ("cocostuff", "voc", "mine"):
        path = tmp_path / f"{name}.txt"
        path.write_text("cat\ndog\n")
        recipe = dataset_settings("masks/custom", options={"vocabulary": str(path)})
        assert recipe.vocabulary.name == name
        recipes.append((recipe.tagging, recipe.masks))
    assert recipes[0] == recipes[1] == recipes[2] == (TagCLIPConfig(), MaskConfig())


def test_presets_differ_in_quirks_only():
    """Of a preset's settings, "reference" changes these and no others, for any data set."""
    quirks = {
        "image.apply_exif", "image.max_long_side", "image.position_rounding", "dmar.clip_boxes", "cwr.clip_boxes",
        "cwr.stop_at_degenerate", "rule.floor", "local_attention", "affinity.clip_boxes", "cam.reference_names",
        "cam.precision",
        "crf.engine", "crf.wrap_dark_pixels", "storage_dtype", "round_upsampled", "max_refine_side",
        "pamr.centre_per_dilation", "excel.heads", "excel.affinity.clip_boxes", "excel.drop_rounds_down",
        "excel.normalise_over_tokens", "excel.affinity_sums_heads",
    }  # fmt: skip

    def flat(values: dict, prefix: str = "") -> dict:
        nested = ((f"{prefix}{key}", value) for key, value in values.items())
        return {
            key: inner
            for name, value in nested
            for key, inner in (flat(value, f"{name}.") if isinstance(value, dict) else {name: value}).items()
        }

    for name in ("voc2012", "coco2014", "cocostuff"):
        changed = set()
        default, reference = (dataset_settings(f"masks/{name}", preset) for preset in ("default", "reference"))
        for part in ("tagging", "masks"):
            one, other = (flat(getattr(recipe, part).to_dict()) for recipe in (default, reference))
            changed |= {key for key in one if one[key] != other[key]}
        assert changed == quirks


def test_class_thresholds_by_name_are_checked_before_a_model_loads():
    options = {"vocabulary": "cat,dog", "tagging.rule.class_thresholds.dog": 0.3}
    recipe = dataset_settings("masks/custom", options=options)
    assert recipe.tagging.rule.class_thresholds == {"dog": 0.3}
    with pytest.raises(UsageError, match=r"class_thresholds: 'dgo' is not a class; did you mean 'dog'\?"):
        dataset_settings("masks/custom", options={"vocabulary": "cat,dog", "tagging.rule.class_thresholds.dgo": 0.3})


def test_class_thresholds_by_name_decide_the_tags(golden_clip):
    vocabulary = Vocabulary(["cat", "dog"])
    options = {"vocabulary": "cat,dog", "tagging.rule.rule": "absolute", "tagging.rule.at_least_one": False}
    pixels = np.full((32, 48, 3), 90, np.uint8)

    def tags(thresholds: dict) -> list[str]:
        options["tagging.rule.class_thresholds"] = thresholds
        recipe = dataset_settings("masks/custom", options=options)
        assert isinstance(recipe, Recipe)
        assert recipe.vocabulary.names == vocabulary.names
        return recipe.tagger(golden_clip)([pixels])[0].tags

    assert tags({"cat": -1.0, "dog": 2.0}) == ["cat"]
    assert tags({"cat": 2.0, "dog": -1.0}) == ["dog"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"masks.alfa": 1}, "unknown setting masks.alfa"), ({"out.x": 1}, "--set out.x")],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError, match=message):
        dataset_settings("masks/voc2012", options=options)


def test_config_path_is_absolute():
    assert config_path("masks/voc2012") == str(configs_folder().resolve() / "masks" / "voc2012.py")

"""Options of a run and of a training as fields of their configs."""

import pytest

from tagclip.errors import UsageError
from wsss.cli.main import build_parser, execute
from wsss.cli.run_options import (
    FIELDS,
    TRAINING_FIELDS,
    given_training_options,
    run_fields,
    split_settings,
    training_settings,
)


def fields(*arguments: str, settings=None) -> dict:
    return run_fields(build_parser().parse_args(["run", *arguments]), settings or {})


def test_only_given_options_are_fields():
    assert fields() == {}
    assert fields("--confidence", "0", "--no-quick-gelu", "--scales", "1", "1.5", "--flip", "--out", "runs/a b") == {
        "masks.confidence": 0.0,
        "model.quick_gelu": False,
        "masks.views.scales": [1.0, 1.5],
        "masks.views.flip": True,
        "out": "runs/a b",
    }
    assert fields("--quick-gelu") == {"model.quick_gelu": True}
    assert fields("--at-least-one") == {"tagging.rule.at_least_one": True}
    assert fields("--no-at-least-one") == {"tagging.rule.at_least_one": False}


def test_set_wins():
    assert fields("--tag-threshold", "0.3", settings={"tagging.rule.threshold": 0.4}) == {"tagging.rule.threshold": 0.4}


@pytest.mark.parametrize("source", ["folder", "photos/*.jpg", "a.jpg"])
def test_images_of_ones_own_drop_the_configs_root(source):
    assert fields("--images", source) == {"images.source": source, "images.root": None}


def test_another_list_of_the_same_images_keeps_it(tmp_path):
    (tmp_path / "val.txt").write_text("2007_000033\n")
    assert fields("--images", str(tmp_path / "val.txt")) == {"images.source": str(tmp_path / "val.txt")}
    assert fields("--images", "val.txt", "--image-root", "photos")["images.root"] == "photos"


def test_every_field_exists():
    from dataclasses import fields as fields_of

    from wsss.pipeline.recipe import Recipe
    from wsss.pipeline.run_config import MaskRunConfig
    from wsss.segmentation.train_settings import TrainRequest

    recipe = Recipe.resolve(MaskRunConfig())
    parts = {"model": recipe.run.model, "images": recipe.run.images, "work": recipe.run.work,
             "tagging": recipe.tagging, "masks": recipe.masks}  # fmt: skip
    for field in FIELDS.values():
        first, *path = field.split(".")
        place = parts[first] if path else recipe.run
        for name in path or [first]:
            assert hasattr(place, name), field
            place = getattr(place, name)
    assert set(TRAINING_FIELDS.values()) < {field.name for field in fields_of(TrainRequest)}


def test_settings_of_a_training_have_a_prefix():
    both = {"masks.alpha": 1.0, "train.optimizer.lr": 0.1}
    assert split_settings(both) == ({"masks.alpha": 1.0}, {"optimizer.lr": 0.1})
    assert training_settings({"train.optimizer.lr": 0.1}) == {"optimizer.lr": 0.1}
    with pytest.raises(UsageError, match=r"--set optimizer\.lr: .* write --set train\.optimizer\.lr="):
        training_settings({"optimizer.lr": 0.1})


@pytest.mark.parametrize("command", ["run", "tag", "mask --tags runs/tags"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--images: needed, a folder, a glob, an image or a list; or --config"),
        (["--images", "photos"], r"--classes: needed, names separated by commas, .* \(voc, coco, cocostuff, context\)"),
        (["--classes", "cat"], "--images: needed"),
    ],
)
def test_without_a_config_images_and_classes_must_be_named(command, arguments, message):
    with pytest.raises(UsageError, match=message):
        execute([*command.split(), *arguments])


@pytest.mark.parametrize("command", ["ablate --images photos --labels l.txt", "show --images photos --out o.png"])
def test_commands_that_make_no_run_need_classes_too(command):
    with pytest.raises(UsageError, match="--classes: needed"):
        execute(command.split())


def test_a_rule_for_tags_that_are_there_is_refused():
    command = "mask --tags runs/tags --images photos --classes cat --set tagging.rule.threshold=0.3"
    with pytest.raises(UsageError, match=r"--set tagging\.rule\.threshold: the tags come from --tags"):
        execute(command.split())


def test_a_training_is_looked_up_before_the_masks_are_made():
    with pytest.raises(UsageError, match="--train segmentation/nothing: neither a file nor a shipped config"):
        execute(["run", "--images", "photos", "--classes", "cat", "--train", "segmentation/nothing"])


def test_a_zero_is_given():
    args = build_parser().parse_args(["run", "--seed", "0", "--rounds", "0", "--amp"])
    assert given_training_options(args) == ["--rounds", "--seed", "--amp"]
    assert given_training_options(build_parser().parse_args(["run"])) == []

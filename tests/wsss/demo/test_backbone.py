"""The demo's backbone: what it is trained on, that training resumes, and that the shipped weights know objects."""

import json

import pytest
import torch
from mmengine.config import Config
from mmseg.models.backbones import ResNetV1c

from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.demo.sprites import HELD_OUT_STYLE, TRAINING_STYLES, demo_names
from tagclip.vocabulary import Vocabulary
from tests.wsss.segmentation import squares
from wsss.demo.backbone import (
    MEAN,
    STD,
    BackboneTraining,
    ObjectClassifier,
    ObjectPictures,
    other_objects,
    train_backbone,
)
from wsss.segmentation.bases import DEMO_BACKBONE
from wsss.segmentation.checkpoints import read_harmless


def look(styles, **settings) -> SceneConfig:
    return SceneConfig(side=(96, 96), square=True, objects=(1, 1), object_side=(70, 90), styles=styles, **settings)


def test_pictures_show_no_class_of_voc():
    names = [item.name for item in other_objects().objects]
    assert not set(names) & set(Vocabulary.named("voc").names)
    assert len(names) + 20 == len(demo_names().objects)
    pictures = ObjectPictures(look(TRAINING_STYLES, voc_share=0.0), 3, 8)
    assert len(pictures) == 8
    for index in range(8):
        picture = pictures[index]
        assert picture["inputs"].shape == (3, 96, 96)
        assert picture["inputs"].dtype == torch.uint8
        assert picture["target"].shape == (100,)
        assert picture["target"].sum() == pytest.approx(1)


def test_loss_is_the_cross_entropy_with_the_area_shares():
    torch.manual_seed(0)
    model = ObjectClassifier(5).eval()
    inputs, target = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), torch.eye(5)[[1, 3]] * 0.75
    target[:, 0] = 0.25
    with torch.inference_mode():
        logits = model(inputs)
        expected = -(logits.log_softmax(1) * target).sum(1).mean().item()
        assert model(inputs, target, mode="loss")["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert model(inputs, logits.softmax(1), mode="predict") == [True, True]


def test_training_writes_weights_and_log_and_goes_on(tmp_path):
    settings = {"batch": 4, "warmup": 1, "side": 64, "object_side": (30, 60), "workers": 0}
    settings |= {"eval_every": 2, "eval_pictures": 4}
    threads = torch.get_num_threads()
    path = train_backbone(BackboneTraining(tmp_path, steps=2, threads=threads, **settings))
    first = read_harmless(path)
    assert all(value.dtype == torch.float16 for name, value in first.items() if name.endswith("weight"))
    train_backbone(BackboneTraining(tmp_path, steps=4, threads=threads, **settings))
    rows = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "accuracy" in row] == [2, 4]
    assert (tmp_path / "iter_4.pth").is_file()
    second = read_harmless(path)
    assert {int(value) for name, value in second.items() if name.endswith("num_batches_tracked")} == {4}


def test_shipped_weights_fit_the_demo_config():
    config = Config.fromfile(str(squares.CONFIGS.parent / "demo" / "segmentation.py"))
    assert config.model.pretrained == DEMO_BACKBONE
    settings = {key: value for key, value in config.model.backbone.items() if key != "type"}
    settings["norm_cfg"] = {"type": "BN"}
    weights = read_harmless(DEMO_BACKBONE)
    ResNetV1c(**settings).load_state_dict(weights)
    assert sum(value.numel() for value in weights.values()) == pytest.approx(2.8e6, rel=0.05)


def test_shipped_weights_tell_unseen_objects_in_an_unseen_style_apart():
    """Nearest class mean over VOC's objects, which training left out, in the style that it left out."""

    def features(model, styles, seed, count):
        renderer = SceneRenderer(look(styles, voc_share=1.0), seed)
        scenes = [renderer(index) for index in range(count)]
        images = torch.stack([torch.from_numpy(scene.image.transpose(2, 0, 1).copy()) for scene in scenes])
        normed = (images.float() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        with torch.inference_mode():
            found = torch.nn.functional.normalize(model(normed)[-1].mean((2, 3)), dim=1)
        return found, [scene.objects[0] for scene in scenes]

    def accuracy(model):
        known, names = features(model, TRAINING_STYLES, 1, 240)
        asked, truth = features(model, (HELD_OUT_STYLE,), 2, 120)
        classes = sorted(set(names))
        means = torch.stack([known[[name == one for name in names]].mean(0) for one in classes])
        guesses = [classes[index] for index in (asked @ means.T).argmax(1)]
        return sum(guess == name for guess, name in zip(guesses, truth, strict=True)) / len(truth)

    torch.manual_seed(0)
    model = ResNetV1c(depth=18, base_channels=32, stem_channels=32, norm_cfg={"type": "BN"})
    model.eval()
    untrained = accuracy(model)
    model.load_state_dict(read_harmless(DEMO_BACKBONE))
    assert accuracy(model) > max(0.4, 2 * untrained)

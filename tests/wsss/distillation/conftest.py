"""A small run of tags whose scores taggers are trained on."""

from types import SimpleNamespace

import pytest
from torch import nn

from tests.wsss.runs import draw_images
from wsss.distillation import image_classifiers
from wsss.distillation.distillation_config import DistillationConfig
from wsss.distillation.student_training import TaggerTraining
from wsss.pipeline.label_folder import tag_folder

CLASSES = ["cat", "dog", "bird"]
SMALL = {"backbone": "resnet18", "side": 32, "epochs": 3, "batch_size": 2, "lr": 1e-3}


class Tiny(nn.Module):
    """A few thousand weights with a batch normalisation, dropout and a last layer named as a ResNet's."""

    def __init__(self, classes: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 2, 2), nn.ReLU(),
            nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Dropout(0.05),
        )  # fmt: skip
        self.fc = nn.Linear(128, classes)

    def forward(self, images):
        return self.fc(self.body(images))


class TinyResNet(nn.Module):
    """As small, with the parts of a ResNet by which its class activation maps are found: 4 by 4 places of 32 pixels."""

    def __init__(self, classes: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16)
        self.layer4 = nn.Sequential(nn.Conv2d(16, 24, 2, 2), nn.ReLU())
        self.fc = nn.Linear(24, classes)

    def forward(self, images):
        return self.fc(self.layer4(self.bn1(self.conv1(images)).relu()).mean(dim=(2, 3)))


@pytest.fixture(scope="session", autouse=True)
def tiny_networks():
    """resnet18 and resnet34 are a few thousand weights: what is tested is how networks are trained, kept and used."""
    original, tiny = image_classifiers.TaggerNetwork.build, {"resnet18": Tiny, "resnet34": TinyResNet}

    def build(self):
        return tiny[self.backbone](self.classes) if self.backbone in tiny else original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_classifiers.TaggerNetwork, "build", build)
        yield


@pytest.fixture(scope="session")
def tagged(golden_model_path, tmp_path_factory):
    """.images, .run (folder) of a tagging run of six drawn images, .model (file), .cache."""
    base = tmp_path_factory.mktemp("tagged")
    draw_images(base / "images")
    tag_folder(base / "images", CLASSES, base / "run", model=golden_model_path, cache_dir=base / "cache")
    return SimpleNamespace(images=base / "images", run=base / "run", model=golden_model_path, cache=base / "cache")


@pytest.fixture(scope="session")
def trained(tagged, tmp_path_factory):
    """The file of a tagger that was trained on it."""
    out = tmp_path_factory.mktemp("trained") / "tagger"
    return TaggerTraining(tagged.run, out, DistillationConfig.from_dict(SMALL)).execute().path

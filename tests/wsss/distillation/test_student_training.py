"""Training of a tagger: it learns, it resumes to the same bytes, and it says what stands in the way."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tagclip
import wsss
from tagclip.errors import RunError, UsageError, WeightsError
from tests.wsss.distillation.conftest import SMALL
from tests.wsss.runs import contents
from wsss.distillation.distillation_config import DistillationConfig
from wsss.distillation.image_classifiers import HEADS, TaggerNetwork, load_backbone
from wsss.distillation.student import load_student, read_card
from wsss.distillation.student_training import TaggerTraining
from wsss.files.run_reader import RunReader

TIMES = ("times.json",)


class Killed(BaseException):
    """As a kill: no handler of ours takes it."""


def training(tagged, out, **changes) -> TaggerTraining:
    return TaggerTraining(tagged.run, out, DistillationConfig.from_dict({**SMALL, **changes}))


def test_it_learns_the_scores_of_its_teacher(tagged, tmp_path):
    found = training(tagged, tmp_path / "long", epochs=40, smallest_crop=1.0, flip=False)
    result = found.execute()
    student, photos = load_student(result.path), found.photos
    seen = np.stack([
        student(torch.from_numpy(np.asarray(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None] / 255)
        .sigmoid()[0].numpy() for path in photos.paths
    ])  # fmt: skip
    before = np.abs(photos.labels - photos.labels.mean(axis=0)).mean()
    assert np.abs(seen - photos.labels).mean() < 0.5 * before
    log = [json.loads(line) for line in (tmp_path / "long" / "train_log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == list(range(1, 41))
    assert log[-1]["divergence"] == pytest.approx(result.divergence)
    assert log[-1]["divergence"] < 0.2 * log[0]["divergence"]


@pytest.mark.parametrize("at", [2, 4])
def test_a_killed_training_ends_with_the_same_bytes(tagged, tmp_path, at, monkeypatch):
    """Nine steps; killed within the first epoch and within the second, where labels have moved."""
    changes = {"align": {"enabled": True, "first_epoch": 1, "every": 1}, "bias": {"enabled": True}}
    training(tagged, tmp_path / "whole", **changes).execute()
    cut = training(tagged, tmp_path / "cut", **changes)
    monkeypatch.setattr("wsss.distillation.student_training.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    original, calls = cut._step, []

    def step(*args):
        if len(calls) == at:
            raise Killed
        calls.append(1)
        return original(*args)

    cut._step = step
    with pytest.raises(Killed):
        cut.execute()
    assert (tmp_path / "cut" / "checkpoint.pt").is_file()
    again = training(tagged, tmp_path / "cut", **changes)
    assert again.plan.finished == at
    counts = []
    result = again.execute(watch=lambda total, done: (counts.append((total, done)), _Nobody())[1])
    assert result.resumed
    assert counts == [(18, 2 * at)]
    assert contents(tmp_path / "cut", TIMES) == contents(tmp_path / "whole", TIMES)
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()
    assert again.execute().rate == 0.0


class _Nobody:
    def __enter__(self):
        return lambda images, note: None

    def __exit__(self, *_):
        return None


def test_the_seed_and_the_labels_decide_the_bytes(tagged, trained, tmp_path):
    card = read_card(trained)
    digest = load_student(trained).weights_digest
    assert load_student(training(tagged, tmp_path / "same").execute().path).weights_digest == digest
    for number, changes in enumerate(({"seed": 1}, {"bias": {"enabled": True}}, {"align": {"enabled": True}})):
        other = training(tagged, tmp_path / str(number), **changes).execute()
        assert load_student(other.path).weights_digest != digest
    assert card.training["labels"] == training(tagged, tmp_path / "x").photos.digest
    assert card.training["run"] == RunReader(tagged.run).id
    assert card.teacher.name == str(tagged.model)
    assert card.teacher.patch_size == 16
    assert card.classes.names == ("cat", "dog", "bird")


def test_another_training_is_refused_with_what_differs(tagged, tmp_path):
    training(tagged, tmp_path / "out", epochs=1).execute()
    with pytest.raises(RunError, match=r"belongs to a training with other settings: tagger.epochs 1 there, 2 here"):
        training(tagged, tmp_path / "out", epochs=2).execute()
    assert training(tagged, tmp_path / "out", epochs=2).execute(overwrite=True).epochs == 2
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        training(tagged, tmp_path / "photos").execute()


def test_a_photo_that_cannot_be_read_teaches_nothing(tagged, tmp_path, caplog):
    base = tmp_path / "moved"
    shutil.copytree(tagged.images, base)
    (base / "part0" / "0.png").write_bytes(b"no picture")
    found = TaggerTraining(tagged.run, tmp_path / "out", DistillationConfig.from_dict(SMALL), image_root=base).execute()
    assert found.unreadable == 1
    assert "1 photos could not be read" in caplog.text
    assert read_card(found.path).training["unreadable"] == 1
    for path in base.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(RunError, match="none of its 6 photos can be read"):
        TaggerTraining(tagged.run, tmp_path / "none", DistillationConfig.from_dict(SMALL), image_root=base).execute()


def test_plan_says_what_it_would_do_and_writes_nothing(tagged, tmp_path):
    plan = training(tagged, tmp_path / "out").plan
    assert (plan.images, plan.classes, plan.steps, plan.finished, plan.pretrained) == (6, 3, 9, 0, False)
    assert "weights at random" in plan.text()
    assert plan.parameters > 2000
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("backbone", "last"), [("resnet50", {"fc"}), ("convnext_tiny", {"classifier"}), ("vit_b_32", {"heads"})]
)
def test_networks_of_three_families_and_their_last_layers(backbone, last):
    with torch.device("meta"):
        state = TaggerNetwork(backbone, 3, 64).build().state_dict()
    heads = {name.partition(".")[0] for name in state if name.startswith(HEADS)}
    assert heads == last
    # ConvNeXt's last layers begin with a normalisation, which has no number of classes.
    assert all(len(values) == 3 for name, values in state.items() if name.startswith(HEADS) and values.ndim == 2)
    assert len(state) > 50


def test_weights_of_a_file_fill_all_but_the_last_layer(tmp_path):
    source = TaggerNetwork("resnet18", 7, 32).build()
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    architecture = TaggerNetwork("resnet18", 3, 32)
    network = architecture.build()
    assert load_backbone(network, architecture, tmp_path / "weights.pth")
    for name, values in network.state_dict().items():
        assert name.startswith("fc.") or torch.equal(values, source.state_dict()[name])
    assert not load_backbone(network, architecture, None)


def test_wrong_weights_and_names(tmp_path):
    torch.save(TaggerNetwork("resnet18", 3, 32).build().state_dict(), tmp_path / "tiny.pth")
    demo = TaggerNetwork("demo", 3, 32)
    with pytest.raises(WeightsError, match=r"--weights .*tiny.pth: no weights of demo: .* is missing"):
        load_backbone(demo.build(), demo, tmp_path / "tiny.pth")
    wrong = {**TaggerNetwork("resnet18", 3, 32).build().state_dict(), "body.0.bias": torch.zeros(5)}
    torch.save(wrong, tmp_path / "wrong.pth")
    tiny = TaggerNetwork("resnet18", 3, 32)
    with pytest.raises(WeightsError, match=r"body.0.bias is \(5,\), not \(16,\)"):
        load_backbone(tiny.build(), tiny, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match="no such weights file"):
        load_backbone(tiny.build(), tiny, tmp_path / "none.pth")
    with pytest.raises(UsageError, match=r"--backbone resnet19: not one of .*resnet18.*, demo"):
        TaggerNetwork("resnet19", 3, 32).build()
    with torch.device("meta"), pytest.raises(UsageError, match=r"tagger.side 50: vit_b_16 does not take it"):
        TaggerNetwork("vit_b_16", 3, 50).build()


def test_the_demos_tower_starts_from_the_demos_weights():
    from safetensors.torch import load_file

    import tagclip.demo.sprites as demo

    architecture = TaggerNetwork("demo", 4, 64)
    network = architecture.build()
    assert load_backbone(network, architecture, None)
    stored = load_file(demo.ASSETS / "demo_clip.safetensors")["visual.proj"].float()
    assert torch.equal(network.tower.proj.detach(), stored)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "tagger.epochs 0 must be positive"), ({"side": 8}, "tagger.side 8"),
        ({"smallest_crop": 0.0}, "smallest_crop"), ({"align": {"every": 0}}, "align.every 0"),
        ({"align": {"margin": 0.5}}, "margin"), ({"bias": {"floor": 1.0}}, "bias.floor"),
        ({"epoch": 3}, "tagger.epoch"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(UsageError, match=message):
        DistillationConfig.from_dict(values)


def test_a_run_of_tags_from_a_file_is_no_teacher(tagged, tmp_path):
    from wsss.pipeline.label_folder import label_folder

    run = label_folder(
        tagged.images, ["cat", "dog", "bird"], tmp_path / "run", model=tagged.model, tags=tagged.run,
        cache_dir=tagged.cache, refine="none",
    )  # fmt: skip
    with pytest.raises(UsageError, match="tags come from a file"):
        TaggerTraining(run.root, tmp_path / "out")


@pytest.mark.parametrize(
    ("package", "place"), [("torchvision", "distillation/image_classifiers.py"), ("transformers", "masks/sam.py")]
)
def test_large_packages_are_imported_in_one_place_when_they_are_needed(package, place):
    root = Path(wsss.__file__).parent
    found = []
    for path in (*root.rglob("*.py"), *Path(tagclip.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == package for name in names):
                found.append((path.relative_to(root.parent).as_posix(), node in tree.body))
    assert found == [(f"wsss/{place}", False)]

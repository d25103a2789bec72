"""The second look: against a plain transcription, at the edges of images and maps, and after kills."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tagclip.clip import build_text_classifier
from tagclip.errors import UsageError, WeightsError
from tagclip.vocabulary import Vocabulary
from tests.oracle.ccd import find_threshold, look_again, peak_box, weighted_map
from tests.wsss.distillation.conftest import CLASSES, SMALL, TinyResNet
from tests.wsss.distillation.test_student_training import TIMES, Killed
from tests.wsss.runs import contents, draw_images
from wsss.cli.main import execute
from wsss.distillation import second_look, student_training
from wsss.distillation.distillation_config import DistillationConfig, SecondLookConfig
from wsss.distillation.image_classifiers import TaggerNetwork, activation_maps, require_activation_maps
from wsss.distillation.second_look import SecondLook, crop_size, peak_boxes, renew_labels, search_threshold
from wsss.distillation.soft_labels import CorrectedLabels
from wsss.distillation.student import Student, TaggerCard, Teacher, load_student, read_card
from wsss.distillation.student_training import TaggerTraining
from wsss.files.run_reader import RunReader
from wsss.pipeline.label_folder import tag_folder

LOOK = {"enabled": True, "side": 64, "offset": 8, "bound": 0.5, "margin": 1.0, "chunk_size": 2}
LOOKING = {**SMALL, "backbone": "resnet34", "second_look": LOOK}
CONFIG = SecondLookConfig(**LOOK)
NO_BIAS = np.ones(3, np.float32)


def training(tagged, out, **changes) -> TaggerTraining:
    return TaggerTraining(tagged.run, out, DistillationConfig.from_dict({**LOOKING, **changes}))


def as_square(path, side=64) -> torch.Tensor:
    values = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    return F.interpolate(values, (side, side), mode="bilinear", antialias=True)[0]


def log_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- the whole step against a transcription


@pytest.mark.parametrize("corrected", [False, True])
def test_a_training_renews_labels_as_the_transcription_does(tagged, tmp_path, oracle_clip, corrected, monkeypatch):
    """The labels of the third epoch, from the tagger that stands after the second one."""
    bias = {"enabled": corrected, "floor": 0.05}
    seen, labels = {}, {}
    found = training(tagged, tmp_path / "out", bias=bias)
    original = found._step

    def step(number, optimizer, inputs, chosen, weights):
        rows = found._batch(number)
        labels.setdefault(number // found.steps_per_epoch, {}).update(zip(rows.tolist(), chosen, strict=True))
        if number == 6:  # nothing has been learned since the look
            seen.update({name: value.clone() for name, value in found.student.network.state_dict().items()})
        return original(number, optimizer, inputs, chosen, weights)

    monkeypatch.setattr(found, "_step", step)
    found.execute()
    network = TinyResNet(3).eval()
    network.load_state_dict(seen)
    squares = [as_square(path) for path in found.photos.paths]
    predicted, cams = [], []
    for square in squares:
        inputs = found.student.squeezed(square[None])
        predicted.append(network(inputs).sigmoid()[0].tolist())
        features = network.layer4(network.bn1(network.conv1(inputs)).relu())[0]
        cams.append(torch.stack([weighted_map(features, network.fc.weight, label) for label in range(3)]).detach())
    threshold = find_threshold(predicted, 0.5 - 1)  # the transcription has CCD's interval of 2 classes
    entry = log_of(tmp_path / "out")[1]["second_look"]
    assert entry["threshold"] == pytest.approx(threshold, abs=1e-6)
    crops, first = 0, found._first
    for row, square in enumerate(squares):
        before = labels[1][row]
        trace = look_again(
            oracle_clip, square, cams[row], predicted[row], before, CLASSES, threshold, offset=8,
            floor=0.05 if corrected else 0.0, bias=first.bias,
        )  # fmt: skip
        np.testing.assert_allclose(labels[2][row], trace.labels, atol=2e-5)
        np.testing.assert_array_equal(before, first.labels[row])
        crops += len(trace.boxes)
    assert 0 < crops < 18
    assert entry["crops"] == crops
    moved = np.mean([np.abs(labels[2][row] - labels[1][row]).mean() for row in range(6)])
    assert entry["labels_moved"] == pytest.approx(moved, abs=1e-5)
    assert moved > 0.01
    assert ["second_look" in row for row in log_of(tmp_path / "out")] == [False, True, False]
    assert corrected == bool((first.bias != 1).any())


def test_the_threshold_is_the_one_that_stepping_up_finds():
    rng = np.random.default_rng(0)
    for bound in (0, 1, 4):
        predicted = rng.random((30, 12)) ** 4
        config = SecondLookConfig(bound=bound)
        threshold = search_threshold(predicted.astype(np.float32), config)
        assert threshold == pytest.approx(find_threshold(predicted.astype(np.float32).tolist(), bound))
        classes = (predicted >= threshold).sum(axis=1).mean()
        assert bound < classes < bound + 2
    few = rng.random((5, 3)).astype(np.float32)  # fewer classes than the bound: the first threshold
    assert search_threshold(few, SecondLookConfig()) == 0.001
    assert search_threshold(few, SecondLookConfig(first_threshold=0.05)) == 0.05
    assert search_threshold(np.zeros((0, 12), np.float32), SecondLookConfig()) == 0.001
    certain = np.ones((4, 12), np.float32)  # no threshold below 1 has fewer: the last one
    assert search_threshold(certain, SecondLookConfig()) == pytest.approx(1, abs=0.0011)
    assert find_threshold(certain.tolist(), 4) == pytest.approx(search_threshold(certain, SecondLookConfig()))


# ---------------------------------------------------------------- boxes and crops


def test_boxes_are_those_of_plain_loops_also_at_borders():
    rng = np.random.default_rng(1)
    maps = torch.from_numpy(rng.random((7, 4, 4)).astype(np.float32))
    maps[0] *= 0.1
    maps[0, 0, 0] = 3  # in the corner
    maps[1] *= 0.1
    maps[1, 3, 2] = 3  # at the lower border
    maps[2, 1, 1] = maps[2, 2, 3] = 2  # two peaks
    boxes = peak_boxes(maps, CONFIG)
    assert [tuple(box) for box in boxes.tolist()] == [peak_box(one, 64, 8) for one in maps]
    assert boxes[0, :2].tolist() == [0, 0]
    assert boxes[1, 3] == 64
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert peak_boxes(torch.zeros(0, 4, 4), CONFIG).shape == (0, 4)


def test_a_map_without_a_peak_points_at_the_whole_image():
    boxes = peak_boxes(torch.tensor([[[5.0]], [[-1.0]]]), CONFIG)  # one patch
    assert boxes.tolist() == [[0, 0, 64, 64]] * 2
    assert peak_boxes(torch.full((1, 4, 4), 0.25), CONFIG).tolist() == [[0, 0, 64, 64]]


def test_a_box_of_one_pixel_is_a_crop_of_one_pixel():
    map_ = torch.zeros(1, 64, 64)
    map_[0, 20, 30] = 1
    assert peak_boxes(map_, replace(CONFIG, offset=0)).tolist() == [[30, 20, 31, 21]]
    assert peak_boxes(map_, replace(CONFIG, offset=0, reading_order_box=True)).tolist() == [[30, 20, 31, 21]]
    assert crop_size([30, 20, 31, 21], 64, 16) == (64, 64)
    assert crop_size([0, 0, 64, 1], 64, 16) == (16, 64)
    assert crop_size([10, 0, 20, 40], 640, 14) == (644, 168)


def test_the_published_box_leaves_out_what_reading_order_does_not_see():
    map_ = torch.zeros(1, 64, 64)
    for y, x in ((10, 30), (20, 5), (20, 60), (30, 40)):
        map_[0, y, x] = 1
    assert peak_boxes(map_, replace(CONFIG, offset=0)).tolist() == [[5, 10, 61, 31]]
    assert peak_boxes(map_, replace(CONFIG, offset=0, reading_order_box=True)).tolist() == [[30, 10, 40, 30]]
    assert peak_boxes(map_.flip(2), replace(CONFIG, offset=2, reading_order_box=True)).tolist() == [[21, 8, 35, 32]]


@pytest.fixture(scope="module")
def look(golden_clip):
    vocabulary = Vocabulary(CLASSES)
    first = CorrectedLabels(np.zeros((1, 3), np.float32), np.ones(1, np.float32), NO_BIAS)
    return SecondLook(golden_clip, vocabulary, CONFIG, first, 0.0)


def test_chunks_do_not_change_answers(look):
    squares = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    owners = torch.tensor([0, 0, 1, 1, 1])
    boxes = torch.tensor([[0, 0, 20, 20], [5, 5, 45, 60], [0, 0, 64, 64], [3, 3, 4, 4], [40, 0, 64, 24]])
    together = look.answers(squares, owners, boxes)
    look.config = replace(CONFIG, chunk_size=1)
    try:
        alone = look.answers(squares, owners, boxes)
    finally:
        look.config = CONFIG
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.sum(dim=1), torch.ones(5))
    assert together.shape == (5, 3)
    assert (together[0] - together[2]).abs().max() > 1e-4
    assert look.answers(squares, owners[:0], boxes[:0]).shape == (0, 3)


def test_images_without_a_class_keep_their_labels_and_grey_ones_are_images(look):
    student = Student(TinyResNet(3), TaggerCard("resnet34", 32, {}, Teacher("x", None, None, "", 16))).freeze()
    student.network.fc.weight.zero_()
    student.network.fc.bias.copy_(torch.tensor([-9.0, 2.0, -9.0]))
    squares = torch.full((2, 3, 64, 64), 0.5)
    labels = np.array([[0.2, 0.4, 0.6], [0.9, 0.0, 0.1]], np.float32)
    kept, crops = look.renew(student, squares, labels, 0.95)
    assert crops == 0
    np.testing.assert_array_equal(kept, labels)
    renewed, crops = look.renew(student, squares, labels, 0.5)  # one class of each; constant maps: the whole image
    assert crops == 2
    answer = look.answers(squares, torch.tensor([0]), torch.tensor([[0, 0, 64, 64]]))[0].numpy()
    np.testing.assert_allclose(renewed, 0.2 * labels + 0.8 * np.maximum(answer, labels), atol=1e-5)


def test_labels_mix_with_what_was_seen():
    labels = np.array([[0.5, 0.9], [0.3, 0.6]], np.float32)
    seen = np.array([[0.8, 0.2], [0.0, 0.0]], np.float32)
    found, bias = np.array([True, False]), np.array([0.5, 0.8], np.float32)
    new = renew_labels(labels, seen, found, bias, 0.1, replace(CONFIG, with_label=False))
    np.testing.assert_allclose(new, [[1.0, 0.2 * 0.9 + 0.8 * 0.25], [0.3, 0.6]], rtol=1e-6)
    assert new.dtype == np.float32
    highest = renew_labels(labels, seen, found, bias, 0.1, CONFIG)
    np.testing.assert_allclose(highest, [[1.0, 0.9], [0.3, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(renew_labels(labels, seen, found, bias, 0.1, replace(CONFIG, ratio=1.0)), labels)


# ---------------------------------------------------------------- maps of networks


def test_a_resnets_maps_add_up_to_its_logits():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = TaggerNetwork("resnet50", 4, 64).build().eval()
        images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits, maps = activation_maps(network, images)
    assert maps.shape == (2, 4, 2, 2)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + network.fc.bias, logits, atol=1e-4, rtol=1e-4)
    assert not network.layer4._forward_hooks


def test_a_convnexts_maps_add_up_to_its_logits_but_for_its_normalisation():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = TaggerNetwork("convnext_tiny", 4, 64).build().eval()
        norm, last = network.classifier[0], network.classifier[2]
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits, maps = activation_maps(network, images)
        pooled = network.avgpool(network.features(images))[:, :, 0, 0]
        mean, deviation = pooled.mean(1, keepdim=True), (pooled.var(1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        offset = (last.weight * norm.weight).sum(dim=1) * mean
        expected = (maps.mean(dim=(2, 3)) - offset) / deviation + last(norm.bias[None])
    torch.testing.assert_close(expected, logits, atol=1e-4, rtol=1e-4)


def test_the_demos_maps_are_the_logits_of_its_patches():
    network = TaggerNetwork("demo", 4, 64).build().eval()
    images = torch.rand(2, 3, 64, 64)
    logits, maps = activation_maps(network, images)
    assert maps.shape == (2, 4, 4, 4)
    torch.testing.assert_close(logits, network(images))
    read = network.tower(images)
    patch = network.patch_head(read.patches[1, 6] * network.scale)  # second row, third column
    torch.testing.assert_close(maps[1, :, 1, 2], patch)


@pytest.mark.parametrize(("backbone", "allowed"), [
    ("resnet50", True), ("resnext50_32x4d", True), ("wide_resnet50_2", True), ("convnext_small", True),
    ("demo", True), ("vit_b_32", False), ("resnet18", False),
])  # fmt: skip
def test_networks_without_maps_are_refused(backbone, allowed):
    """resnet18 is a stand-in here whose head reads four maxima."""
    with torch.device("meta"):
        network = TaggerNetwork(backbone, 3, 64).build()
    if allowed:
        require_activation_maps(network, backbone)
        return
    with pytest.raises(UsageError, match=f"--second-look: {backbone} has no class activation maps"):
        require_activation_maps(network, backbone)


# ---------------------------------------------------------------- what is refused


def test_a_training_is_refused_before_it_begins(tagged, tmp_path, golden_model_path):
    with pytest.raises(UsageError, match="resnet18 has no class activation maps"):
        training(tagged, tmp_path / "out", backbone="resnet18")
    with pytest.raises(UsageError, match=r"after_epoch 2: nothing would learn from a look after the last of 2 epochs"):
        training(tagged, tmp_path / "out", epochs=2)
    one = tag_folder(tagged.images, ["cat"], tmp_path / "one", model=golden_model_path).root
    with pytest.raises(UsageError, match="compares classes with each other and there is one"):
        TaggerTraining(one, tmp_path / "out", DistillationConfig.from_dict(LOOKING))
    assert not (tmp_path / "out").exists()


def test_weights_that_are_gone_or_others_drop_nothing(tagged, tmp_path, golden_model_path):
    model = tmp_path / "model.safetensors"
    shutil.copy(golden_model_path, model)
    run = tag_folder(tagged.images, CLASSES, tmp_path / "run", model=model, cache_dir=tagged.cache).root
    config = DistillationConfig.from_dict(LOOKING)
    TaggerTraining(run, tmp_path / "out", config).execute()
    before = contents(tmp_path / "out")
    model.unlink()
    with pytest.raises(WeightsError, match=r"--second-look: needs the CLIP that --run .* was made with: .*no such"):
        TaggerTraining(run, tmp_path / "out", config).execute(overwrite=True)
    assert TaggerTraining(run, tmp_path / "out", config).execute().rate == 0  # what is done needs no CLIP
    assert contents(tmp_path / "out") == before
    from safetensors.torch import load_file, save_file

    state = load_file(golden_model_path)
    state["logit_scale"] = state["logit_scale"] + 1
    save_file(state, model, {"quick_gelu": "true"})
    with pytest.raises(WeightsError, match=r"the scores of --run .* are not those of .* as it is now"):
        TaggerTraining(run, tmp_path / "out", config).execute(overwrite=True)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"after_epoch": 0}, "second_look.after_epoch 0"), ({"sample": 0}, "second_look.sample 0"),
        ({"chunk_size": 0}, "second_look.chunk_size 0"), ({"side": 16}, "second_look.side 16"),
        ({"offset": -1}, "second_look.offset -1"), ({"first_threshold": 0.0}, "first_threshold 0.0"),
        ({"threshold_step": 1.0}, "threshold_step 1.0"), ({"peak": 1.0}, "second_look.peak 1.0"),
        ({"ratio": 1.5}, "second_look.ratio 1.5"), ({"bound": -1.0}, "second_look.bound -1.0"),
        ({"margin": 0.0}, "second_look.margin 0.0"), ({"template": "a photo"}, "needs exactly one '{}'"),
        ({"fields": 1}, "tagger.second_look.fields"),
    ],
)  # fmt: skip
def test_wrong_settings_of_the_look_are_named(values, message):
    with pytest.raises(UsageError, match=message):
        DistillationConfig.from_dict({"second_look": values})


def test_published_constants_are_the_defaults():
    config = SecondLookConfig()
    assert (config.after_epoch, config.bound, config.margin, config.sample) == (2, 4, 2, 100)
    assert (config.first_threshold, config.threshold_step, config.peak) == (0.001, 0.001, 0.95)
    assert (config.side, config.offset, config.ratio, config.template) == (640, 80, 0.2, "a photo of the {}")
    assert not config.enabled


# ---------------------------------------------------------------- kills, people, photos


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_a_training_that_is_killed_around_its_look_ends_with_the_same_bytes(tagged, tmp_path, moment, monkeypatch):
    changes = {"bias": {"enabled": True}, "align": {"enabled": True, "first_epoch": 1, "every": 1}}
    training(tagged, tmp_path / "whole", **changes).execute()
    monkeypatch.setattr(student_training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    cut, original, calls = training(tagged, tmp_path / "cut", **changes), SecondLook.renew, []

    def renew(*args):
        if len(calls) == {"before": 0, "within": 2}.get(moment):
            raise Killed
        calls.append(1)
        return original(*args)

    step = cut._step

    def last(number, *args):
        if number == 6 and moment == "after":
            raise Killed
        return step(number, *args)

    monkeypatch.setattr(cut, "_step", last)
    with monkeypatch.context() as patch:
        patch.setattr(SecondLook, "renew", renew)
        with pytest.raises(Killed):
            cut.execute()
    stored = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)
    assert stored["step"] == 6
    assert stored["look"]["images"] == {"before": 0, "within": 4, "after": 6}[moment]
    assert (stored["look"]["threshold"] > 0) == (moment != "before")
    loaded = []
    load = second_look.load_clip
    monkeypatch.setattr(second_look, "load_clip", lambda *args, **kwargs: (loaded.append(1), load(*args, **kwargs))[1])
    again = training(tagged, tmp_path / "cut", **changes)
    assert again.plan.finished == 6
    again.execute()
    assert len(loaded) == (moment != "after")
    assert contents(tmp_path / "cut", TIMES) == contents(tmp_path / "whole", TIMES)
    assert log_of(tmp_path / "cut")[1]["second_look"]["crops"] > 0


def test_a_look_changes_the_tagger_and_its_settings_are_its_identity(tagged, tmp_path):
    digests = {
        load_student(training(tagged, tmp_path / str(number), second_look={**LOOK, **changes}).execute().path)
        .weights_digest
        for number, changes in enumerate(({}, {"enabled": False}, {"ratio": 0.9}, {"offset": 0}))
    }  # fmt: skip
    assert len(digests) == 4
    same = training(tagged, tmp_path / "same").execute().path
    assert load_student(same).weights_digest == load_student(tmp_path / "0" / "tagger.pt").weights_digest


def test_a_training_without_a_look_does_not_know_of_any(tagged, tmp_path):
    without, with_one = (
        training(tagged, tmp_path / str(enabled), second_look={**LOOK, "enabled": enabled}).identity["tagger"]
        for enabled in (False, True)
    )
    assert "second_look" not in without  # as in trainings that were begun before there was one
    assert {**without, "second_look": with_one["second_look"]} == with_one


def test_what_a_person_said_stays(tagged, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tagged.run, run)
    lines = [json.loads(line) for line in (run / "tags.jsonl").read_text().splitlines()]
    lines[1]["correction"] = {"machine": [], "added": {"dog": "me"}, "removed": {"cat": "me"}}
    (run / "tags.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = TaggerTraining(run, tmp_path / "out", DistillationConfig.from_dict(
        {**LOOKING, "second_look": {**LOOK, "bound": 9}}))  # fmt: skip
    assert np.argwhere(found.photos.corrected).tolist() == [[1, 0], [1, 1]]
    labels, original = {}, found._step

    def step(number, optimizer, inputs, chosen, weights):
        if number >= 6:
            labels.update(zip(found._batch(number).tolist(), chosen.copy(), strict=True))
        return original(number, optimizer, inputs, chosen, weights)

    monkeypatch.setattr(found, "_step", step)
    found.execute()
    assert found._look is None  # with its CLIP
    assert labels[1][:2].tolist() == [0, 1]
    others = np.delete(np.stack([labels[row] for row in range(6)]), 1, 0)
    assert (np.abs(others - np.delete(found.photos.labels, 1, 0)) > 1e-4).any(axis=1).all()


def test_tiny_grey_and_unreadable_photos(tmp_path, golden_model_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (1, 1), (200, 10, 10)).save(images / "a.png")
    Image.fromarray(np.arange(40 * 3, dtype=np.uint8).reshape(3, 40)).save(images / "b.png")  # grey, three pixels high
    Image.new("L", (30, 30), 128).save(images / "c.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)).save(images / "d.png")
    Image.new("RGB", (20, 20), (5, 90, 10)).save(images / "e.png")
    run = tag_folder(images, CLASSES, tmp_path / "run", model=golden_model_path).root
    (images / "c.png").write_bytes(b"no picture")
    config = DistillationConfig.from_dict({**LOOKING, "second_look": {**LOOK, "bound": 9, "chunk_size": 1}})
    found = TaggerTraining(run, tmp_path / "out", config)
    result = found.execute()
    assert result.unreadable == 1
    entry = log_of(tmp_path / "out")[1]["second_look"]
    assert entry["crops"] == 12  # each class of the four that can be read
    assert np.isfinite(result.divergence)
    assert len(list(RunReader(run).records())) == 5


def test_the_demo_looks_at_what_its_own_tower_points_at(tmp_path):
    draw_images(tmp_path / "images")
    run = tag_folder(tmp_path / "images", CLASSES, tmp_path / "run", model="demo").root
    settings = {"side": 32, "epochs": 2, "batch_size": 3, "second_look": {**LOOK, "after_epoch": 1}}
    found = TaggerTraining(run, tmp_path / "out", DistillationConfig.from_dict(settings)).execute()
    assert load_student(found.path).card.backbone == "demo"
    entry = log_of(tmp_path / "out")[0]["second_look"]
    assert entry["crops"] > 0
    assert entry["labels_moved"] > 0


def test_the_command_takes_the_look(tagged, tmp_path):
    settings = [f"tagger.{key}={value}" for key, value in LOOKING.items() if key != "second_look"]
    settings += [f"tagger.second_look.{key}={value}" for key, value in LOOK.items() if key != "enabled"]
    command = ["train-tagger", str(tagged.run), "--quiet", "--set", *settings]
    assert execute([*command, "--out", str(tmp_path / "with"), "--second-look"]) == 0
    assert execute([*command, "--out", str(tmp_path / "without"), "--no-second-look"]) == 0
    assert "second_look" in log_of(tmp_path / "with")[1]
    assert read_card(tmp_path / "with" / "tagger.pt").training["settings"]["second_look"]["side"] == 64
    assert not any("second_look" in row for row in log_of(tmp_path / "without"))


def test_the_text_rows_are_of_the_vocabulary(look, golden_clip):
    expected = build_text_classifier(golden_clip, [("cat",), ("dog",), ("bird",)], ("a photo of the {}",))
    assert torch.equal(look.classifier, expected)

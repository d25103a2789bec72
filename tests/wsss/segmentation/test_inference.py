"""A trained model from its checkpoint: predictions, pictures, ONNX."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS
from PIL import Image

from tagclip.errors import RunError, UsageError, WeightsError
from tagclip.image_lists import find_images
from tagclip.vocabulary import Vocabulary
from tests.wsss.segmentation import squares
from wsss.config import CrfConfig
from wsss.files.classes import folder_vocabulary
from wsss.files.mask_files import read_mask
from wsss.files.sources import Sample
from wsss.segmentation import onnx_export
from wsss.segmentation import predictor as predictor_module
from wsss.segmentation import view_logits as view_logits_module
from wsss.segmentation.checkpoints import DESCRIPTION, load_segmentor, read_training_checkpoint
from wsss.segmentation.onnx_export import ExportConfig, export_onnx
from wsss.segmentation.predictor import InferenceConfig, Predictor
from wsss.segmentation.segment_images import segment_images
from wsss.segmentation.self_training import SelfTrainingConfig, allowed_labels, new_labels
from wsss.segmentation.view_logits import LogitWindow, ViewLogits, view_logits


@pytest.fixture(scope="module")
def segmentor(trained):
    return load_segmentor(trained.checkpoint)


@pytest.fixture(scope="module")
def photo():
    return squares.scene(7, size=96)[0]


def test_a_checkpoint_describes_itself(segmentor):
    assert segmentor.classes == ("background", *squares.CLASSES)
    assert segmentor.palette == Vocabulary(squares.CLASSES).label_palette.tolist()
    assert segmentor.multi_scale["scales"] == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert not segmentor.model.training


def test_predictions_are_those_of_mmsegs_test_loop(segmentor, config_file, folders, trained):
    cfg = Config.fromfile(str(config_file))
    settings = cfg.val_dataloader.dataset.to_dict()
    data = DATASETS.build({**settings, "data_root": str(folders / "val"), "vocabulary": list(squares.CLASSES)})
    with torch.no_grad():
        expected = segmentor.model.test_step(pseudo_collate([data[2]]))[0].pred_sem_seg.data[0].numpy()
    rgb = np.asarray(Image.open(folders / "val" / "JPEGImages" / "s102.png"))
    np.testing.assert_array_equal(Predictor(segmentor).labels(rgb), expected)


def test_the_base_size_is_the_test_pipelines(segmentor, photo):
    seen = []

    class Spy(Predictor):
        def _views(self, rgb):
            for view, mirrored in super()._views(rgb):
                seen.append(view.shape[:2])
                yield view, mirrored

    resized = replace(segmentor, test_pipeline=[{"type": "Resize", "scale": [256, 48], "keep_ratio": True}])
    wide = np.concatenate([photo, photo], axis=1)
    assert Spy(resized, InferenceConfig(scales=(1.0, 0.5))).labels(wide).shape == (96, 192)
    Spy(resized, InferenceConfig(base_size=False)).labels(wide)
    assert seen == [(48, 96), (24, 48), (96, 192)]


def test_flip_averages_both_views(segmentor, photo):
    plain = Predictor(segmentor, InferenceConfig())
    both = Predictor(segmentor, InferenceConfig(flip=True)).probabilities(photo)
    mirrored = plain.probabilities(np.ascontiguousarray(photo[:, ::-1]))[:, :, ::-1]
    np.testing.assert_allclose(both, (plain.probabilities(photo) + mirrored) / 2, atol=1e-6)
    np.testing.assert_allclose(both.sum(axis=0), 1, atol=1e-5)


def test_a_window_as_large_as_the_photo_is_the_whole_photo(segmentor, photo):
    whole = Predictor(segmentor, InferenceConfig(mode="whole")).probabilities(photo)
    slide = Predictor(segmentor, InferenceConfig(mode="slide", crop=96, stride=64)).probabilities(photo)
    np.testing.assert_allclose(slide, whole, atol=1e-6)
    small = Predictor(segmentor, InferenceConfig(mode="slide", crop=64, stride=32)).probabilities(photo)
    assert small.shape == whole.shape
    assert np.abs(small - whole).max() > 1e-4


def test_labels_may_be_restricted(segmentor, photo):
    every = Predictor(segmentor).probabilities(photo)
    two = Predictor(segmentor).probabilities(photo, [0, 2])
    np.testing.assert_allclose(two, every[[0, 2]] / every[[0, 2]].sum(axis=0), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "slide", "crop": 64, "stride": 40}, {"scales": (1.0, 0.7), "flip": True},
     {"crf": CrfConfig(iterations=2), "flip": True}],
)  # fmt: skip
@pytest.mark.parametrize("at_once", [1, 3])
def test_a_few_labels_at_a_time_give_what_all_at_once_give(segmentor, photo, monkeypatch, options, at_once):
    model = copy.deepcopy(segmentor.model)
    with torch.no_grad():
        model.decode_head.conv_seg.weight.normal_(generator=torch.Generator().manual_seed(1))
    made = Predictor(replace(segmentor, model=model), InferenceConfig(**options))
    labels, confidence = made.labels_with_confidence(photo)
    assert "crf" in options or len(np.unique(labels)) > 1
    held = []
    original = predictor_module._mean_shares
    monkeypatch.setattr(predictor_module, "labels_at_once", lambda size: at_once)
    monkeypatch.setattr(predictor_module, "_mean_shares", lambda *a: held.append(original(*a)) or held[-1])
    few, sure = made.labels_with_confidence(photo)
    assert [len(part) for part in held][: -(-4 // at_once)] == ([1, 1, 1, 1] if at_once == 1 else [3, 1])
    assert (few != labels).mean() < 0.001  # ties within rounding
    np.testing.assert_allclose(sure, confidence, atol=1e-4)


def test_memory_does_not_grow_with_the_number_of_labels(segmentor, monkeypatch):
    """1,000 labels of a photo of 2 megapixels are 8 GB of logits, and as much again for their softmax."""
    count, size, limit = 1000, (150, 200), 2**24
    monkeypatch.setattr(predictor_module, "MOST_BYTES", limit)
    low = torch.randn(count, 10, 13, generator=torch.Generator().manual_seed(0))
    view = ViewLogits([LogitWindow(0, 0, *size, low)], size, False, False)
    made = Predictor(replace(segmentor, classes=tuple(map(str, range(count)))))
    monkeypatch.setattr(made, "_logits", lambda rgb: iter([view]))
    expected = view.at(size, slice(None)).softmax(0)
    asked = []
    original = ViewLogits.at
    monkeypatch.setattr(
        ViewLogits, "at", lambda self, size, labels: asked.append(original(self, size, labels)) or asked[-1]
    )
    labels, confidence = made.labels_with_confidence(np.zeros((*size, 3), np.uint8))
    assert max(part.numel() * predictor_module.BYTES_PER_VALUE for part in asked) <= limit
    assert (labels != expected.argmax(0).numpy()).mean() < 1e-3
    np.testing.assert_allclose(confidence, expected.amax(0).numpy(), atol=1e-5)
    assert (labels.dtype, labels.max() > 255) == (np.uint16, True)


def test_windows_are_mmsegs(segmentor, photo):
    model = segmentor.model
    batch = torch.from_numpy(photo.transpose(2, 0, 1).copy())[None].float()
    for test_cfg in ({"mode": "whole"}, {"mode": "slide", "crop_size": (40, 64), "stride": (30, 33)}):
        test_cfg = ConfigDict(test_cfg)
        with torch.no_grad():
            ours = view_logits(model, batch, test_cfg, False).at(photo.shape[:2], slice(None))
            theirs = view_logits_module._by_model(model, batch, test_cfg)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_crf_keeps_to_the_labels_found(segmentor, photo):
    plain = Predictor(segmentor).labels(photo)
    refined = Predictor(segmentor, InferenceConfig(crf=CrfConfig(iterations=2))).labels(photo)
    assert refined.dtype == np.uint8
    assert set(np.unique(refined)) <= set(np.unique(plain))


@pytest.mark.parametrize("options", [{"scales": ()}, {"scales": (0.0,)}, {"crop": 32, "stride": 33}])
def test_wrong_inference_settings(options):
    with pytest.raises(UsageError):
        InferenceConfig(**options)


class Bomb:
    """Pickles into a call; loading it must not make that call."""

    def __reduce__(self):
        return (Path.touch, (Path(Bomb.target),))


def test_checkpoints_run_no_code(tmp_path):
    Bomb.target = str(tmp_path / "exploded")
    torch.save({"state_dict": {}, "meta": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match=r"bomb.pth cannot be read"):
        load_segmentor(tmp_path / "bomb.pth")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "cannot be read"), (b"PK\x03\x04 no", "cannot be read"),
     (pickle.dumps([1]), "cannot be read")],
)  # fmt: skip
def test_wrong_checkpoints(tmp_path, content, message):
    path = tmp_path / "x.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_segmentor(path)


def test_checkpoints_that_do_not_describe_themselves_need_a_config(trained, config_file, tmp_path):
    stored = read_training_checkpoint(trained.checkpoint)
    torch.save({"state_dict": stored["state_dict"]}, tmp_path / "bare.pth")
    with pytest.raises(UsageError, match="give its --config"):
        load_segmentor(tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="weights of another model"):
        load_segmentor(tmp_path / "bare.pth", config_file)
    fitting = tmp_path / "fitting.py"
    four = "for head in ('decode_head', 'auxiliary_head'): model[head]['num_classes'] = 4"
    fitting.write_text(squares.CONFIG + four)
    assert load_segmentor(tmp_path / "bare.pth", fitting).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("description", "problem"),
    [("{", "Expecting"), ("[" * 100_000, "nested too deep"), ("[1]", "list instead"), ("{}", "without classes"),
     (7, "int instead")],
    ids=["json", "nested", "list", "empty", "number"],
)  # fmt: skip
def test_a_damaged_description_is_said_or_replaced(trained, config_file, tmp_path, description, problem):
    stored = read_training_checkpoint(trained.checkpoint)
    path = tmp_path / "damaged.pth"
    torch.save({**stored, "meta": {DESCRIPTION: description}}, path)
    with pytest.raises(WeightsError, match=rf"damaged.pth: its description .* --config \(.*{problem}"):
        load_segmentor(path)
    with pytest.raises(WeightsError, match="weights of another model"):
        load_segmentor(path, config_file)


def test_segment_images_writes_masks_overlays_and_failures(segmentor, folders, tmp_path):
    source = tmp_path / "photos"
    (source / "deep").mkdir(parents=True)
    for name in ("one.png", "deep/one.png"):
        Image.fromarray(squares.scene(3)[0]).save(source / name)
    (source / "broken.jpg").write_bytes(b"no image")
    predictor = Predictor(segmentor)
    report = segment_images(predictor, find_images(source), tmp_path / "out", checkpoint="one")
    assert (report.written, report.kept, [row["id"] for row in report.failures]) == (2, 0, ["broken"])
    mask = tmp_path / "out" / "masks" / "deep" / "one.png"
    np.testing.assert_array_equal(read_mask(mask), predictor.labels(squares.scene(3)[0]))
    assert Image.open(mask).mode == "P"
    assert folder_vocabulary(mask.parents[1]).label_names == tuple(predictor.segmentor.classes)
    assert Image.open(tmp_path / "out" / "overlays" / "one.png").size == (64, 64)
    failure = json.loads((tmp_path / "out" / "failures.jsonl").read_text())
    assert {**failure, "message": ""} == {
        "id": "broken", "path": (source / "broken.jpg").as_posix(), "stage": "segment", "error": "ImageError",
        "message": "",
    }  # fmt: skip
    assert "broken.jpg" in failure["message"]
    (source / "broken.jpg").unlink()
    overlay = tmp_path / "out" / "overlays" / "one.png"
    overlay.write_bytes(overlay.read_bytes()[:-6])  # a power cut
    again = segment_images(predictor, find_images(source), tmp_path / "out", checkpoint="one")
    assert (again.written, again.kept) == (1, 1)
    assert (tmp_path / "out" / "failures.jsonl").read_text() == ""
    assert not list((tmp_path / "out").glob(".*"))


def test_results_of_another_model_or_other_options_are_not_mixed(segmentor, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(squares.scene(3)[0]).save(tmp_path / "photos" / "one.png")
    images, out = find_images(tmp_path / "photos"), tmp_path / "out"
    segment_images(Predictor(segmentor), images, out, checkpoint="one")
    with pytest.raises(RunError, match=r"out: holds results with other settings: checkpoint 'one' there, 'two' here; "):
        segment_images(Predictor(segmentor), images, out, checkpoint="two")
    flipped = Predictor(segmentor, InferenceConfig(flip=True))
    with pytest.raises(RunError, match=r"options\.flip False there, True here"):
        segment_images(flipped, images, out, checkpoint="one")
    other = Predictor(replace(segmentor, classes=("background", "a", "b", "c")))
    with pytest.raises(RunError, match="classes"):
        segment_images(other, images, out, checkpoint="one")
    assert segment_images(flipped, images, out, checkpoint="one", overwrite=True).written == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(UsageError, match="holds other files"):
        segment_images(flipped, images, tmp_path / "mine", checkpoint="one", overwrite=True)


def test_next_rounds_labels(segmentor, tmp_path):
    vocabulary = Vocabulary(squares.CLASSES)
    assert allowed_labels(("blue", "red"), vocabulary) == [0, 1, 3]
    assert allowed_labels(("blue",), Vocabulary(squares.CLASSES, has_background=False)) == [2]
    rgb, mask, _ = squares.scene(5)
    Image.fromarray(rgb).save(tmp_path / "x.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    predictor = Predictor(segmentor)
    tagged = Sample("x", tmp_path / "x.png", tmp_path / "mask.png", ("green",))
    keep_all = SelfTrainingConfig(confidence=None)
    probabilities = predictor.probabilities(rgb, [0, 2])
    expected = np.array([0, 2])[probabilities.argmax(axis=0)]
    np.testing.assert_array_equal(new_labels(predictor, tagged, vocabulary, keep_all), expected)
    sure = new_labels(predictor, tagged, vocabulary, SelfTrainingConfig(confidence=0.6))
    np.testing.assert_array_equal(sure == 255, probabilities.max(axis=0) < 0.6)
    untagged = replace(tagged, tags=())
    np.testing.assert_array_equal(new_labels(predictor, untagged, vocabulary, keep_all), mask)
    free = new_labels(predictor, untagged, vocabulary, SelfTrainingConfig(confidence=None, restrict_to_tags=False))
    np.testing.assert_array_equal(free, predictor.labels(rgb))


@pytest.mark.parametrize("dynamic", [False, True])
def test_onnx_gives_the_same_logits(segmentor, photo, tmp_path, dynamic):
    import onnxruntime

    path = tmp_path / "model.onnx"
    report = export_onnx(segmentor, path, photo, ExportConfig(height=64, width=96, dynamic=dynamic))
    assert report.difference < 1e-3
    assert report.agreement > 0.999
    session = onnxruntime.InferenceSession(str(path))
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["background", *squares.CLASSES]
    size = (128, 64) if dynamic else (64, 96)
    rgb = np.asarray(Image.fromarray(photo).resize(size[::-1]))
    (logits,) = session.run(None, {"rgb": rgb.transpose(2, 0, 1)[None].astype(np.float32)})
    expected = Predictor(segmentor, InferenceConfig(base_size=False)).labels(rgb)
    assert (logits[0].argmax(axis=0) == expected).mean() > 0.999


def test_a_wrong_export_is_not_written(segmentor, photo, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    wrong = onnx_export.ExportReport(difference=0.5, agreement=0.9, megabytes=1.0)
    monkeypatch.setattr(onnx_export, "compare_with_torch", lambda *_: wrong)
    with pytest.raises(RunError, match=r"differs from torch by 5.00e-01"):
        export_onnx(segmentor, path, photo, ExportConfig(height=64, width=64))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="smaller than 32"):
        ExportConfig(height=16)


def test_the_crf_sharpens_the_labels_that_were_found(segmentor, photo, monkeypatch):
    """Two labels compete along an edge; the CRF decides for the right one and never for one that nothing spoke for."""
    height, width = photo.shape[:2]
    rgb = np.full((height, width, 3), 40, np.uint8)
    rgb[:, width // 2 :] = 220
    probabilities = np.zeros((4, height, width), np.float32)
    probabilities[1], probabilities[3] = 0.7, 0.3
    probabilities[1, :, width // 2 - 6 :], probabilities[3, :, width // 2 - 6 :] = 0.3, 0.7  # six columns too far left
    predictor = Predictor(segmentor, InferenceConfig(crf=CrfConfig()))
    monkeypatch.setattr(predictor, "probabilities", lambda image: probabilities)
    labels = predictor.labels(rgb)
    expected = np.ones((height, width), np.uint8)
    expected[:, width // 2 :] = 3
    assert (labels == expected).mean() > 0.99
    assert set(np.unique(labels)) == {1, 3}
    plain = Predictor(segmentor, InferenceConfig())
    monkeypatch.setattr(plain, "probabilities", lambda image: probabilities)
    assert (plain.labels(rgb) != expected).mean() > 0.05


"""ClipSegmentor in mmseg's own test loop and in ours, and the configs that ship."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from PIL import Image

from tagclip.errors import RunError, UsageError
from tagclip.vocabulary import Vocabulary
from tests.tools.commands import command
from wsss.dense.dataset_scores import adapt, build_dataset, build_dataset_and_model, check_dataset, score_dataset
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.dense.strategy import get_strategy

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "dense"
LABELS = {"voc21": 21, "voc20": 20, "context60": 60, "context59": 59, "coco_object": 81, "cocostuff": 171,
          "cityscapes": 19, "ade20k": 150}  # fmt: skip
ONE = ["a photo of a {}."]


@METRICS.register_module(force=True)
class UnroundedIoU(IoUMetric):
    """mmseg's metric without its rounding to two digits."""

    def compute_metrics(self, results):
        totals = [sum(part) for part in zip(*results, strict=True)]
        return {"unrounded_miou": float(np.nanmean(self.total_area_to_metrics(*totals)["IoU"]))}


@pytest.fixture(scope="module")
def voc_folder(tmp_path_factory, golden_dir):
    """Three scenes of different sizes with made-up masks, in VOC's layout."""
    root = tmp_path_factory.mktemp("voc")
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    ids = []
    for index, size in enumerate([(96, 64), (100, 70), (64, 90)]):
        scenes = sorted((golden_dir / "images").glob("scene*.png"))
        image = Image.open(scenes[index % len(scenes)]).convert("RGB").resize(size)
        image.save(root / "JPEGImages" / f"i{index}.jpg")
        coarse = random.choice(np.array([0, 8, 12, 15, 255], np.uint8), (4, 4))
        mask = Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)
        mask.save(root / "SegmentationClass" / f"i{index}.png")
        ids.append(f"i{index}")
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(ids) + "\n")
    return root


def voc_config(name, root, model_path, **dense):
    config = Config.fromfile(str(CONFIGS / f"{name}.py"))
    return adapt(
        config,
        clip={"path_or_name": str(model_path)},
        dense={"templates": ONE, "mode": "whole", "short_side": 64, **dense},
        data_root=str(root),
    )


@pytest.mark.parametrize(
    ("name", "dense"),
    [("voc21", {"strategy": "naclip"}), ("voc20", {"strategy": "gclip", "vocabulary": "labels"})],
)
def test_both_loops_give_the_same_miou(voc_folder, golden_model_path, tmp_path, name, dense):
    config = voc_config(name, voc_folder, golden_model_path, **dense)
    dataset, model = build_dataset_and_model(config)
    ours = score_dataset(dataset, model)
    config.test_evaluator = {"type": "UnroundedIoU"}
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    config.work_dir = str(tmp_path)
    theirs = Runner.from_cfg(config).test()["unrounded_miou"]
    assert ours.images == 3
    assert 0 < ours.miou < 1
    assert ours.miou == pytest.approx(theirs, abs=1e-6)


def test_prediction_is_the_segmenters(voc_folder, golden_clip, golden_model_path):
    config = voc_config("voc21", voc_folder, golden_model_path, strategy="sclip", vocabulary="tags")
    dataset, model = build_dataset_and_model(config)
    sample = dataset[1]
    predicted = model.test_step({"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]})[0]
    segmenter = DenseSegmenter(
        golden_clip, Vocabulary.load(config.model.classes), DenseConfig.from_dict(config.model.dense)
    )
    expected = segmenter(voc_folder / "JPEGImages" / "i1.jpg")
    assert np.array_equal(predicted.pred_sem_seg.data[0].numpy(), expected.labels)
    assert predicted.pred_sem_seg.data.dtype == torch.int64


def test_labels_come_from_the_ground_truth(voc_folder, golden_model_path):
    for name in ("voc21", "voc20"):
        config = voc_config(name, voc_folder, golden_model_path, strategy="maskclip", vocabulary="labels")
        dataset, model = build_dataset_and_model(config)
        for index in range(len(dataset)):
            sample = dataset[index]
            true = set(sample["data_samples"].gt_sem_seg.data.unique().tolist()) - {255}
            result = model.test_step({"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]})[0]
            assert set(result.pred_sem_seg.data.unique().tolist()) <= true | ({0} if name == "voc21" else set())


def test_logits_and_modes(voc_folder, golden_model_path):
    config = voc_config("voc21", voc_folder, golden_model_path, strategy="clip", background_threshold=0.0)
    config.model.keep_logits = True
    dataset, model = build_dataset_and_model(config)
    sample = dataset[0]
    result = model.test_step({"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]})[0]
    scores = result.seg_logits.data
    assert scores.shape == (21, *result.pred_sem_seg.data.shape[1:])
    agree = (scores.argmax(0) == result.pred_sem_seg.data[0]).float().mean()
    assert agree > 0.999
    assert torch.equal(model(sample["inputs"][None], mode="tensor")[0], scores)
    assert model.extract_feat(sample["inputs"][None])[0].shape[1] == 128
    with pytest.raises(UsageError, match="training-free"):
        model(sample["inputs"][None], [sample["data_samples"]], mode="loss")


def test_answer_has_the_images_own_size(voc_folder, golden_model_path):
    config = voc_config("voc21", voc_folder, golden_model_path, strategy="clip")
    dataset, model = build_dataset_and_model(config)
    sample = dataset[0]["data_samples"]
    sample.set_metainfo({"ori_shape": (33, 41)})
    image = dataset[0]["inputs"]
    assert model.predict([image], [sample])[0].pred_sem_seg.data.shape == (1, 33, 41)
    assert model.predict([image])[0].pred_sem_seg.data.shape == (1, *image.shape[1:])


def test_channel_order(voc_folder, golden_model_path):
    config = voc_config("voc21", voc_folder, golden_model_path, strategy="clip")
    dataset, model = build_dataset_and_model(config)
    image = dataset[0]["inputs"]
    bgr = model.predict([image])[0].pred_sem_seg.data
    config.model.channel_order = "rgb"
    swapped = MODELS.build(config.model)
    assert torch.equal(swapped.predict([image.flip(0).float()])[0].pred_sem_seg.data, bgr)
    config.model.channel_order = "hsv"
    with pytest.raises(UsageError, match="hsv"):
        MODELS.build(config.model)


@pytest.mark.parametrize("name", LABELS)
def test_shipped_config(name):
    config = Config.fromfile(str(CONFIGS / f"{name}.py"))
    dense = DenseConfig.from_dict(config.model.dense)
    get_strategy(dense.strategy, dense.options)
    vocabulary = Vocabulary.load(config.model.classes)
    assert len(vocabulary) + vocabulary.has_background == LABELS[name]
    settings = config.test_dataloader.dataset
    classes = settings.get("metainfo", {}).get("classes") or DATASETS.get(settings.type).METAINFO["classes"]
    expected = ("background", *vocabulary.names) if vocabulary.has_background else vocabulary.names
    assert [one.strip() for one in classes] == list(expected)
    names = [name for group in vocabulary.prompts for name in group] + list(vocabulary.background)
    assert len(set(names)) == len(names), "a name that stands for two classes"
    assert dense.background_threshold == 0 or vocabulary.has_background
    for transform in settings.pipeline:
        TRANSFORMS.build(transform)


def test_objects_of_stuff():
    transform = TRANSFORMS.build({"type": "CocoStuffToObjects"})
    labels = np.array([[0, 79, 80, 170, 255]], np.uint8)
    assert transform({"gt_seg_map": labels})["gt_seg_map"].tolist() == [[1, 80, 0, 0, 0]]


def test_wrong_class_count_and_missing_data(voc_folder, golden_model_path, tmp_path):
    config = voc_config("voc21", voc_folder, golden_model_path)
    config.model.classes = ["cat", "dog"]
    with pytest.raises(UsageError, match="21 labels, the model 3"):
        build_dataset_and_model(config)
    with pytest.raises(UsageError, match="give --data"):
        build_dataset_and_model(voc_config("voc21", tmp_path / "nowhere", golden_model_path))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((96, 64), np.uint8), r"i0.png is 64x96, but its image .* is 96x64: one is the other turned"),
        (np.zeros((64, 96, 3), np.uint8), "i0.png: a RGB image holds colours"),
        (None, "hold nothing but 0 and 255"),
    ],
)
def test_masks_are_looked_at_before_the_first_image_is(voc_folder, golden_model_path, tmp_path, mask, message):
    root = Path(shutil.copytree(voc_folder, tmp_path / "voc"))
    if mask is not None:
        Image.fromarray(mask).save(root / "SegmentationClass" / "i0.png")
    for path in (root / "SegmentationClass").iterdir() if mask is None else ():
        Image.fromarray(np.where(np.asarray(Image.open(path)) > 0, 255, 0).astype(np.uint8)).save(path)
    dataset, model = build_dataset_and_model(voc_config("voc21", root, golden_model_path, strategy="clip"))
    seen = []
    with pytest.raises(RunError, match=message):
        score_dataset(dataset, model, progress=seen.append)
    assert not seen


@pytest.mark.parametrize("loop", ["ours", "mmseg"])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("voc21", 40, r"i0.png holds id 40, but there are 21 labels \(0 background to 20 tvmonitor\)"),
        ("voc20", 21, r"i0.png holds id 21, but there are 20 labels"),
        ("voc21", None, "hold nothing but 0 and 255"),
    ],
)
def test_both_loops_look_at_the_masks_before_a_model_is_loaded(
    voc_folder, golden_model_path, tmp_path, monkeypatch, loop, name, value, message
):
    root = Path(shutil.copytree(voc_folder, tmp_path / "voc"))
    for path in (root / "SegmentationClass").iterdir():
        mask = np.array(Image.open(path))
        if value is not None:
            mask[0, 0] = value
        Image.fromarray(mask if value is not None else np.where(mask > 0, 255, 0).astype(np.uint8)).save(path)
    monkeypatch.setattr("wsss.mmseg_plugin.clip_segmentor.load_clip", lambda *args, **kwargs: pytest.fail("loaded"))
    arguments = ["--config", str(CONFIGS / f"{name}.py"), "--model", str(golden_model_path), "--data", str(root),
                 "--device", "cpu", "--loop", loop]  # fmt: skip
    with pytest.raises(RunError, match=message):
        command("evaluate", "dense")(arguments)


def test_ids_that_a_pipeline_maps_are_looked_at_as_they_are_used(voc_folder, golden_model_path):
    """COCO-Stuff's 171 classes are 81 labels for COCO-Object; a step of somebody else's may do anything."""
    config = voc_config("coco_object", voc_folder, golden_model_path)
    config.test_dataloader.dataset.update(
        data_prefix={"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"}, seg_map_suffix=".png"
    )
    dataset = build_dataset(config)
    labels = [dataset[index]["data_samples"].gt_sem_seg.data for index in range(3)]
    assert {int(one) for found in labels for one in found.unique()} == {0, 1, 9, 13, 16}
    check_dataset(dataset)
    dataset.pipeline.transforms.remove(dataset.pipeline.transforms[2])
    dataset.METAINFO = dataset._metainfo = {"classes": ("background", "a")}
    with pytest.raises(RunError, match="holds id 8, but there are 2 labels"):
        check_dataset(dataset)
    dataset.pipeline.transforms.insert(2, lambda results: results)
    check_dataset(dataset)


def test_ours_and_mmsegs_reader_of_masks_agree(voc_folder, golden_model_path):
    for name in ("voc21", "voc20"):
        ours = build_dataset(voc_config(name, voc_folder, golden_model_path))
        config = voc_config(name, voc_folder, golden_model_path)
        assert config.test_dataloader.dataset.pipeline[1] == {"type": "LoadLabelMap", "ignore_index": 255}
        config.test_dataloader.dataset.pipeline[1] = {"type": "LoadAnnotations"}
        theirs = build_dataset(config)
        for index in range(3):
            one, other = (found[index]["data_samples"].gt_sem_seg.data for found in (ours, theirs))
            assert torch.equal(one, other)
            assert 255 in one


def test_tool(voc_folder, golden_model_path, tmp_path, capsys):
    out = tmp_path / "scores.json"
    arguments = ["--config", str(CONFIGS / "voc21.py"), "--method", "clearclip", "--restrict", "labels",
                 "--mode", "whole",
                 "--model", str(golden_model_path), "--data", str(voc_folder), "--limit", "2", "--device", "cpu",
                 "--json", str(out), "--set", "model.dense.templates=['a photo of a {}.',]"]  # fmt: skip
    assert command("evaluate", "dense")(arguments) == 0
    scores = json.loads(out.read_text())
    assert scores["images"] == 2
    assert scores["dense"]["strategy"] == "clearclip"
    said = capsys.readouterr().out
    assert "mean" in said
    assert "whole images, short side 336 px, logit scale 40, pixels below 0.1 become background, no refinement" in said
    assert scores["settings"] in said

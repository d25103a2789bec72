"""A thousand classes from the photo to the trained model: masks of 16 bits, 65535 ignored, nothing wraps."""

import json
from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import ImageError, RunError, UsageError
from tagclip.vocabulary import Vocabulary
from tests.wsss.runs import draw_images
from tests.wsss.segmentation import squares
from wsss.config import MaskConfig
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.evaluation.pairs import MaskPair, score_pairs
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer
from wsss.files.map_files import StoredMaps, read_maps
from wsss.files.mask_files import ignore_label, read_mask
from wsss.files.run_files import read_manifest
from wsss.files.sources import open_source
from wsss.maps.gradcam_source import GradCamSource
from wsss.masks.generator import MaskGenerator
from wsss.pipeline.mask_run import MaskRun
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.remask import Remasking
from wsss.pipeline.run_config import ImageSettings, MaskRunConfig, MaskWork, ModelSettings
from wsss.review.panels import mask_overlay
from wsss.review.strips import strips_of_run
from wsss.segmentation.overlays import save_label_map, save_overlay
from wsss.segmentation.preflight import check_masks

COUNT = 1000
WORDS = Vocabulary.named("voc").names
NAMES = [" ".join(pair) for pair in (*permutations(WORDS, 2), *product(WORDS, ["wall"]))]
NAMES = list(dict.fromkeys([*NAMES, *(" ".join(three) for three in permutations(WORDS, 3))]))[:COUNT]
ONE_TEMPLATE = ("a photo of a {}.",)


def settings(model: Path, images: Path, classes: Path, out: Path, **masks) -> MaskRunConfig:
    return MaskRunConfig(
        model=ModelSettings(str(model), None), vocabulary=str(classes), images=ImageSettings(str(images)),
        tagging={"templates": ONE_TEMPLATE, "rule": {"rule": "top_k", "top_k": 3}},
        masks={"confidence": 0.5, **masks}, work=MaskWork(mask_workers=1), out=str(out),
    )  # fmt: skip


@pytest.fixture(scope="module")
def thousand(golden_model_path, tmp_path_factory):
    """A finished run of 1,000 classes: .run (folder), .images, .vocabulary, .masks (by id)."""
    base = tmp_path_factory.mktemp("thousand")
    draw_images(base / "images")
    (base / "classes.txt").write_text("\n".join(NAMES))
    recipe = Recipe.resolve(settings(golden_model_path, base / "images", base / "classes.txt", base / "run"))
    MaskRun(recipe, device="cpu").execute(strict=True)
    source = open_source(base / "run")
    masks = {sample.id: read_mask(sample.mask) for sample in source.samples}
    return SimpleNamespace(run=base / "run", source=source, vocabulary=recipe.vocabulary, masks=masks, base=base)


def test_masks_have_16_bits_and_the_tags_of_their_image(thousand):
    present = set()
    for sample in thousand.source.samples:
        with Image.open(sample.mask) as image:
            assert image.mode.startswith("I;16")
        labels = {thousand.vocabulary.index(tag) + 1 for tag in sample.tags}
        assert set(np.unique(thousand.masks[sample.id]).tolist()) <= {0, *labels, 65535}
        present |= set(np.unique(thousand.masks[sample.id]).tolist())
    assert max(present - {65535}) > 255
    assert 65535 in present


def test_the_manifest_counts_them_by_name(thousand):
    manifest = read_manifest(thousand.run)
    assert manifest["masks"]["ignore_label"] == 65535
    pixels = np.concatenate([mask.ravel() for mask in thousand.masks.values()])
    counts = manifest["counts"]
    assert counts["ignored_share"] == pytest.approx((pixels == 65535).mean(), abs=1e-6)
    expected = {name: int((pixels == label).sum()) for label, name in enumerate(["background", *NAMES])}
    assert counts["pixels"] == {name: number for name, number in expected.items() if number}


def test_remask_and_review_follow(thousand, tmp_path):
    plan = Remasking.plan(thousand.run, tmp_path / "masks", {"confidence": None})
    plan.execute(1)
    for name, mask in thousand.masks.items():
        again = read_mask(tmp_path / "masks" / f"{name}.png")
        assert again.dtype == np.uint16
        assert 65535 not in again
        assert np.array_equal(again[mask != 65535], mask[mask != 65535])
    assert len(list(strips_of_run(thousand.run))) == len(thousand.masks)


def test_evaluation_tells_the_classes_apart(thousand, tmp_path):
    """The truth is the prediction, but for one class beyond 255 that has another's name."""
    label = max(np.unique(np.concatenate([mask.ravel() for mask in thousand.masks.values()]))[:-1])
    for name, mask in thousand.masks.items():
        truth = np.where(mask == 65535, 0, mask)
        truth[mask == label] = label - 256
        save_label_map(tmp_path / f"{name}.png", truth, thousand.vocabulary.label_palette)
    pairs = [MaskPair(s.id, s.mask, tmp_path / f"{s.id}.png") for s in thousand.source.samples]
    scorer = MaskScorer(MaskEvaluationConfig(ignore_label(COUNT + 1)))
    assert score_pairs(pairs, scorer) == []
    scores = scorer.scores(["background", *NAMES])
    answered = np.nan_to_num(scores.iou_answered, nan=-1)
    assert answered[label] == answered[label - 256] == 0
    assert set(answered.tolist()) == {-1, 0, 1}
    report = json.loads(json.dumps(scores.to_dict()))
    assert report["confusion"] is None
    table = {(row, column): pixels for row, column, pixels in report["confusion_pairs"]}
    assert table[label - 256, label] == sum(int((mask == label).sum()) for mask in thousand.masks.values())
    assert sum(pixels for (_, column), pixels in table.items() if column == COUNT + 1) == sum(
        int((mask == 65535).sum()) for mask in thousand.masks.values()
    )
    assert "(65535)" in scores.table()


def test_an_8_bit_mask_whose_255_is_a_class_is_refused(thousand, tmp_path):
    scorer = MaskScorer(MaskEvaluationConfig(ignore_label(COUNT + 1)))
    shallow, deep = np.array([[0, 255]], np.uint8), np.array([[0, 65535]], np.uint16)
    with pytest.raises(ImageError, match="the ground truth has 8 bits and the value 255, which is a class"):
        scorer.measure(deep, shallow)
    root = squares.voc_folder(tmp_path, count=2)
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(root / "SegmentationClass" / "s100.png")
    names = ["background", *NAMES]
    with pytest.raises(RunError, match=r"s100.png has 8 bits and the value 255, .* save it as a 16-bit PNG"):
        check_masks(open_source(root), names)


def test_preflight_counts_16_bits(thousand):
    report = check_masks(thousand.source, ["background", *NAMES])
    pixels = np.concatenate([mask.ravel() for mask in thousand.masks.values()])
    assert report.pixels.tolist() == [int((pixels == label).sum()) for label in range(COUNT + 1)]
    assert report.ignored_share == pytest.approx((pixels == 65535).mean())
    with pytest.raises(RunError, match=r"holds id .*, but there are 2 labels"):
        check_masks(thousand.source, ["background", "cat"])


def test_training_segmenting_and_the_next_round(thousand, tmp_path):
    from mmseg.registry import DATASETS
    from mmseg.utils import register_all_modules

    from wsss.segmentation.checkpoints import load_segmentor
    from wsss.segmentation.predictor import Predictor
    from wsss.segmentation.self_training import SelfTrainingConfig, relabel
    from wsss.segmentation.train_settings import TrainRequest, resolve_config
    from wsss.segmentation.training import train_segmentor

    config = tmp_path / "config.py"
    crop = 'dict(type="Resize", scale=(64, 64)), dict(type="RandomCrop", crop_size=(64, 64), cat_max_ratio=0.75)'
    pipeline = squares.CONFIG.replace(
        'dict(type="LoadAnnotations"),\n    dict', f'dict(type="LoadAnnotations"), {crop},\n    dict'
    )
    assert pipeline != squares.CONFIG
    config.write_text(pipeline)
    request = TrainRequest(
        config, thousand.run, val=thousand.run, val_list=str(thousand.base / "val.txt"), work_dir=tmp_path / "work",
        iterations=2,
    )  # fmt: skip
    sample = thousand.source.samples[0]
    (thousand.base / "val.txt").write_text(sample.id)
    cfg, _ = resolve_config(request)
    register_all_modules(init_default_scope=True)
    labels = DATASETS.build(cfg.val_dataloader.dataset)[0]["data_samples"].gt_sem_seg.data
    assert np.array_equal(labels[0].numpy(), thousand.masks[sample.id])
    assert cfg.val_evaluator.ignore_index == 65535

    summary = train_segmentor(request)
    pixels = np.concatenate([mask.ravel() for mask in thousand.masks.values()])
    assert summary.ignored_share == pytest.approx((pixels == 65535).mean())
    assert np.isfinite(summary.outcomes[0].final_loss)
    assert summary.outcomes[0].best is not None

    segmentor = load_segmentor(summary.checkpoint)
    assert segmentor.model.decode_head.num_classes == COUNT + 1
    assert segmentor.model.decode_head.ignore_index == segmentor.model.auxiliary_head.ignore_index == 65535
    assert segmentor.model.data_preprocessor.seg_pad_val == 65535
    predictor = Predictor(segmentor)
    predictor.probabilities = lambda rgb, labels=None: np.eye(COUNT + 1, dtype=np.float32)[:, [[300, 999]]]
    assert predictor.labels(np.zeros((1, 2, 3), np.uint8)).tolist() == [[300, 999]]

    settings = SelfTrainingConfig(confidence=0.9)
    relabel(Predictor(segmentor), thousand.source, thousand.vocabulary, tmp_path / "next", settings)
    for name in thousand.masks:
        mask = read_mask(tmp_path / "next" / f"{name}.png")
        assert (mask.dtype, set(np.unique(mask).tolist()) & {255}) == (np.uint16, set())


@pytest.fixture(scope="module")
def wide():
    """300 classes without a background, so that background words have the ignore label."""
    return Vocabulary(NAMES[:300], has_background=False, background=["grass"])


def test_dense_inference_does_not_wrap(golden_clip, wide, tmp_path):
    """Classes 280 and 290 became label 24 and 34."""
    segmenter = DenseSegmenter(golden_clip, wide, DenseConfig(strategy="clip", templates=ONE_TEMPLATE))
    assert segmenter._labels.tolist() == [*range(300), 65535]
    rgb = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    found = segmenter(rgb, classes=[280, 290])
    assert found.labels.dtype == np.uint16
    assert set(np.unique(found.labels).tolist()) <= {280, 290, 65535}
    assert set(np.unique(found.labels).tolist()) & {280, 290}
    probabilities = segmenter.probabilities(rgb, classes=[280, 290])
    assert probabilities.shape == (300, 48, 64)
    assert np.flatnonzero(probabilities.amax(dim=(1, 2)).numpy()).tolist() == [280, 290]


def test_overlays_of_many_colours(wide, tmp_path):
    labels = np.array([[0, 299], [255, 65535]], np.uint16)
    rgb = np.full((2, 2, 3), 100, np.uint8)
    save_overlay(tmp_path / "overlay.png", rgb, labels, wide.label_palette, opacity=1.0)
    shown = np.asarray(Image.open(tmp_path / "overlay.png"))
    assert shown[0, 1].tolist() == wide.label_palette[299].tolist()
    assert shown[1, 0].tolist() == wide.label_palette[255].tolist()
    assert shown[1, 1].tolist() == [252, 248, 248]
    flat = np.full((20, 20), 299, np.uint16)
    inner = mask_overlay(np.zeros((20, 20, 3), np.uint8), flat, wide.label_palette, background=False, weight=1.0)
    assert inner[10, 10].tolist() == wide.label_palette[299].tolist()


def test_class_indices_of_stored_maps(tmp_path):
    """Beyond 32,767 an int16 would be negative; below, the files stay as they were."""
    for index, dtype in ((32767, np.int16), (40000, np.int32)):
        with (tmp_path / "maps.npz").open("wb") as file:
            StoredMaps(np.zeros((1, 2, 2), np.float16), np.array([index]), (4, 4)).write(file)
        stored = read_maps(tmp_path / "maps.npz")
        assert (stored.classes.tolist(), stored.classes.dtype) == ([index], dtype)


@pytest.mark.parametrize(
    "make",
    [
        lambda clip, vocabulary: GradCamSource(clip, vocabulary, config=MaskConfig()),
        lambda clip, vocabulary: MaskGenerator(clip, vocabulary),
        lambda clip, vocabulary: DenseSegmenter(clip, vocabulary),
    ],
)
def test_too_many_classes_are_refused_before_a_prompt_is_encoded(make, golden_clip, monkeypatch):
    vocabulary = Vocabulary([f"class {number}" for number in range(65535)])

    def encode(*args, **kwargs):
        raise AssertionError("a prompt was encoded")

    monkeypatch.setattr("wsss.maps.gradcam_source.build_text_classifier", encode)
    monkeypatch.setattr("wsss.dense.inference.build_text_classifier", encode)
    with pytest.raises(UsageError, match=r"65536 labels, background included, .*: use at most 65535"):
        make(golden_clip, vocabulary)


def test_a_recipe_of_too_many_classes_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(f"class {number}" for number in range(65535)))
    with pytest.raises(UsageError, match="use at most 65535"):
        Recipe.resolve(MaskRunConfig(vocabulary=str(tmp_path / "classes.txt")))

"""Folders of images and masks, image weights, label names."""

import json

import pytest

from tagclip.errors import RunError, UsageError
from tests.wsss.segmentation import squares
from wsss.files.sources import Sample, load_vocabulary, open_source
from wsss.segmentation.image_weights import ImageWeights


def test_run_folder_gives_images_masks_tags_and_scores(folders):
    source = open_source(folders / "run")
    assert source.layout == "run"
    assert [sample.id for sample in source.samples] == ["a/s0", "b/s1", "a/s2", "b/s3", "a/s4", "b/s5"]
    sample = source.samples[1]
    assert sample.image.is_file()
    assert sample.mask == folders / "run" / "masks" / "b" / "s1.png"
    assert len(sample.tags) == len(sample.scores) == 2
    assert sample.scores == pytest.approx((0.5, 0.9))


def test_voc_folder_lists_every_mask_or_the_list_or_the_split(tmp_path):
    root = squares.voc_folder(tmp_path, count=3)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("s102\n")
    (root / "mine.txt").write_text("# two\ns101 0 2\n\ns100\n")
    assert [s.id for s in open_source(root).samples] == ["s100", "s101", "s102"]
    assert [s.id for s in open_source(root, split="val").samples] == ["s102"]
    assert [s.id for s in open_source(root, split="test").samples] == ["s100", "s101", "s102"]
    assert [s.id for s in open_source(root, ann_file="mine.txt", split="val").samples] == ["s101", "s100"]


def test_missing_masks_are_named(tmp_path):
    root = squares.run_folder(tmp_path / "run", count=4)
    (root / "masks" / "b" / "s1.png").unlink()
    (root / "masks" / "a" / "s2.png").unlink()
    source = open_source(root)
    assert source.missing == ("b/s1", "a/s2")
    with pytest.raises(RunError, match=r"2 of 4 images have no mask: b/s1, a/s2; run tools/generate_masks.py"):
        source.require_complete()


def test_a_recorded_failure_is_not_a_missing_mask(tmp_path):
    root = squares.run_folder(tmp_path / "run", count=3)
    (root / "masks" / "b" / "s1.png").unlink()
    (root / "failures.jsonl").write_text(json.dumps({"id": "b/s1", "stage": "masks"}) + "\n")
    source = open_source(root)
    assert (source.missing, source.failed) == ((), ("b/s1",))
    source.require_complete()


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (lambda root: None, {}, "neither a run folder"),
        (lambda root: root.rmdir(), {}, "no such folder"),
        (lambda root: (root / "tags.jsonl").write_text("{}"), {}, "no masks in"),
        (lambda root: squares.voc_folder(root, 1), {"ann_file": "no.txt"}, "list no.txt does not exist"),
        (lambda root: squares.voc_folder(root, 1), {"layout": "coco"}, "is not one of auto, run, voc"),
        (lambda root: squares.voc_folder(root, 1), {"mask_dir": "Other"}, "no folder Other with masks"),
        (lambda root: (root / "JPEGImages").mkdir(), {}, r"no folder .*SegmentationClass"),
    ],
)
def test_wrong_folders_and_options(tmp_path, prepare, options, message):
    root = tmp_path / "data"
    root.mkdir()
    prepare(root)
    with pytest.raises(UsageError, match=message):
        open_source(root, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), ("s100\ns100\n", "s100 is listed twice"), ("s100\nother\n", "no image for other")],
)
def test_bad_lists(tmp_path, text, message):
    root = squares.voc_folder(tmp_path, count=1)
    (root / "list.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        open_source(root, ann_file="list.txt")


@pytest.mark.parametrize("line", ["{", "[1]"])
def test_damaged_records(tmp_path, line):
    root = squares.run_folder(tmp_path / "run", count=1)
    with (root / "tags.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"tags\.jsonl line 2"):
        open_source(root)


def test_moved_image(tmp_path):
    root = squares.run_folder(tmp_path / "run", count=1)
    (tmp_path / "run_images").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"does not exist; if the photos were moved, .*--image-root DIR"):
        open_source(root)
    (sample,) = open_source(root, image_root=tmp_path / "elsewhere").samples
    assert sample.image == tmp_path / "elsewhere" / "a" / "s0.png"
    with pytest.raises(UsageError, match=r"--image-root .*nowhere: no such folder"):
        open_source(root, image_root=tmp_path / "nowhere")


def sample(*scores: float) -> Sample:
    return Sample("x", None, None, tuple("abc"[: len(scores)]), scores)


@pytest.mark.parametrize(
    ("rule", "expected"), [("mean", [0.75, 0.5]), ("min", [0.5, 0.5]), ("product", [0.5, 0.5])]
)
def test_image_weights(rule, expected):
    weights = ImageWeights(rule)([sample(1.0, 0.5), sample(0.5)])
    mean = sum(expected) / 2
    assert weights == pytest.approx([value / mean for value in expected])


def test_image_weights_have_a_floor_a_power_and_a_mean_of_one():
    weights = ImageWeights("min", power=2.0, floor=0.5)([sample(0.1), sample(1.0), sample()])
    assert sum(weights) == pytest.approx(3)
    assert weights[1] / weights[0] == pytest.approx(4)
    assert weights[1] == pytest.approx(weights[2])
    assert ImageWeights(power=0.0)([sample(0.3), sample(0.9)]) == [1.0, 1.0]
    assert ImageWeights("none")([sample(0.3), sample(0.9)]) == [1.0, 1.0]


def test_image_weights_refuse_tags_without_scores():
    with pytest.raises(UsageError, match="tags without scores"):
        ImageWeights()([Sample("x", None, None, ("a",))])
    with pytest.raises(UsageError, match="'sum' is not one of none, mean, min, product"):
        ImageWeights("sum")


def test_the_vocabulary_comes_from_the_run(folders):
    assert load_vocabulary(None, folders / "run").names == squares.CLASSES
    assert load_vocabulary("voc").names[0] == "aeroplane"
    with pytest.raises(UsageError, match="which classes"):
        load_vocabulary(None, folders / "val")

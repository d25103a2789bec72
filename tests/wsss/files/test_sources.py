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
    with pytest.raises(RunError, match=r"2 of 4 images have no mask: b/s1, a/s2; run `tagclip mask` again"):
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


def test_stray_files_beside_images_and_masks(tmp_path):
    root = squares.voc_folder(tmp_path, count=2)
    for folder in ("JPEGImages", "SegmentationClass"):
        for name in (".DS_Store", "._s100.png", "Thumbs.db", "s100.json", "s101.xml"):
            (root / folder / name).write_bytes(b"\0")
        (root / folder / "s900.png").mkdir()
    (root / "SegmentationClass" / "s100.png").rename(root / "SegmentationClass" / "s100.PNG")
    source = open_source(root)
    assert [(one.id, one.image.name, one.mask.name) for one in source.samples] == [
        ("s100", "s100.png", "s100.PNG"), ("s101", "s101.png", "s101.png"),
    ]  # fmt: skip


def test_images_that_differ_only_in_suffix(tmp_path):
    root = squares.voc_folder(tmp_path, count=1)
    images, masks = root / "JPEGImages", root / "SegmentationClass"
    (images / "s100.jpg").write_bytes((images / "s100.png").read_bytes())
    with pytest.raises(UsageError, match=r"s100.jpg and s100.png could both be the image of s100; remove one"):
        open_source(root)
    (masks / "s100.png").rename(masks / "s100.jpg.png")
    assert [(one.id, one.image.name) for one in open_source(root).samples] == [("s100.jpg", "s100.jpg")]


@pytest.mark.parametrize("text", ["\ufeffa/s0\r\nb/s1.png\r\n", "a/s0 1\nb\\s1 0\n", "./a/s0\tcat\n# x\nb/s1\n"])
def test_lists_of_a_run_are_read_as_all_lists(folders, tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text.encode())
    assert [one.id for one in open_source(folders / "run", ann_file=tmp_path / "list.txt").samples] == ["a/s0", "b/s1"]


def test_listed_images_that_a_run_does_not_have_are_missing(tmp_path):
    root = squares.run_folder(tmp_path / "run", count=2)
    (root / "failures.jsonl").write_text(json.dumps({"id": "c/broken", "stage": "decode"}) + "\n")
    (root / "list.txt").write_text("z/other\nb/s1\nc/broken\n")
    source = open_source(root, ann_file="list.txt")
    assert [one.id for one in source.samples] == ["b/s1"]
    assert (source.missing, source.failed) == (("z/other",), ("c/broken",))
    with pytest.raises(RunError, match="1 of 2 images have no mask: z/other"):
        source.require_complete()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing in it"),
        ("s100\ns100\n", "line 2: 's100' is there already, line 1"),
        ("s100\nother\n", "no image for other"),
        ("s100\n../s100\n", "line 2: id '../s100' is not a path inside"),
    ],
)  # fmt: skip
def test_bad_lists(tmp_path, text, message):
    root = squares.voc_folder(tmp_path, count=1)
    (root / "list.txt").write_text(text)
    with pytest.raises(UsageError, match=message):
        open_source(root, ann_file="list.txt")


@pytest.mark.parametrize("line", ["{", "[1]", "\udce9"])
def test_damaged_records(tmp_path, line):
    root = squares.run_folder(tmp_path / "run", count=1)
    with (root / "tags.jsonl").open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
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

"""Every format, written and read back pixel for pixel: names in folders and in unicode, turned photos, 300 classes, no
background, an image without tags, a failed one. Libraries of others read exports in tools/test_exports.sh."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import ExifTags, Image

from tests.wsss.export.readers import BACKGROUND, HOLD_IGNORED, IGNORED, READERS
from tests.wsss.export.small_runs import FAILED, NO_TAGS, PHOTOS, small_run
from wsss.export import FORMATS, export_run
from wsss.export.export_plan import export_names
from wsss.export.mask_regions import connected_parts
from wsss.files.mask_files import ignore_label
from wsss.files.run_reader import RunReader

MASK_FORMATS = tuple(READERS)
RUNS = {
    "names": {},
    "wide": {"classes": 300},
    "plain": {"has_background": False},
    "wide and plain": {"classes": 300, "has_background": False},
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Run folders. Do not write into them."""
    return {name: small_run(tmp_path_factory.mktemp("run"), **settings) for name, settings in RUNS.items()}


def truth(run: Path, *, ignored: bool, smallest: int = 0) -> dict[str, np.ndarray]:
    """Masks of class indices by name of the export.

    Args:
        ignored: the format knows ignored pixels.
        smallest: parts with fewer pixels are background.
    """
    reader = RunReader(run)
    first, value = int(reader.vocabulary.has_background), ignore_label(reader.vocabulary.label_count)
    names, found = export_names(record.id for record in reader.records()), {}
    for image_id, name in names.items():
        mask = reader.mask(image_id)
        labels = mask.astype(np.int32) - first
        labels[mask == value] = IGNORED if ignored else BACKGROUND
        for index in set(np.unique(labels).tolist()) - {IGNORED, BACKGROUND} if smallest else ():
            for part in connected_parts(labels == index):
                if part.sum() < smallest:
                    labels[part] = BACKGROUND
        found[name] = labels
    return found


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", MASK_FORMATS)
def test_masks_are_read_back(name, run, runs, tmp_path):
    if name == "mmseg":
        pytest.importorskip("mmseg")
    reader = RunReader(runs[run])
    summary = export_run(runs[run], name, out=tmp_path / "out", split="train=0.6,val=0.4")
    assert summary.images == len(PHOTOS)
    assert summary.left_out == {"failed in the run": 1}
    assert summary.failed == []
    assert min(summary.splits.values()) > 1
    shift, ignored = int(reader.vocabulary.has_background), ignore_label(reader.vocabulary.label_count)
    found = READERS[name](tmp_path / "out", shift, ignored)
    wanted = truth(runs[run], ignored=name in HOLD_IGNORED, smallest=10 if name == "yolo" else 0)
    assert found.keys() == wanted.keys()
    assert FAILED not in found
    assert set(np.unique(wanted[NO_TAGS]).tolist()) <= {BACKGROUND, IGNORED}
    for one, labels in wanted.items():
        if name == "yolo":  # a bridge may paint a pixel of a narrow gap
            assert (found[one] != labels).mean() < 0.002, one
        else:
            assert np.array_equal(found[one], labels), one


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("csv", "parquet", "hf")])
def test_photos_are_upright_for_those_who_read_them_raw(name, runs, tmp_path):
    summary = export_run(runs["names"], name, out=tmp_path / "out")
    assert summary.photos["upright"] == 3
    assert any("turned upright and encoded anew, quality kept" in note for note in summary.notes)
    folder = next(
        tmp_path / "out" / one for one in ("images", "JPEGImages", "data") if (tmp_path / "out" / one).is_dir()
    )
    photos = [path for path in folder.rglob("*") if path.is_file()]
    assert len(photos) == len(PHOTOS)
    shapes = {one: labels.shape for one, labels in truth(runs["names"], ignored=True).items()}
    for path in photos:
        place = path.relative_to(folder).as_posix().removesuffix(path.suffix)
        if name not in ("voc", "fiftyone", "label-studio", "cvat"):
            place = place.partition("/")[2]
        with Image.open(path) as image:
            assert image.size[::-1] == shapes[place]
            assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_every_export_says_how_to_import_it(name, runs, tmp_path):
    export_run(runs["names"], name, out=tmp_path / "out", split="a=0.5,b=0.5")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert len(text) > 100
    assert "{" not in text.replace("dataset[", "")
    with (tmp_path / "out" / ".tagclip" / "files.txt").open(encoding="utf-8") as file:
        listed = {json.loads(line) for line in file}
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert listed == {path for path in there if not path.startswith(".tagclip/")}


def test_coco_scores_categories_and_parts(runs, tmp_path):
    export_run(runs["names"], "coco", out=tmp_path / "a", instances="component", stuff=("cat",))
    content = json.loads((tmp_path / "a" / "annotations" / "instances_train.json").read_text(encoding="utf-8"))
    assert [one["id"] for one in content["categories"]] == [1, 2, 3, 4]
    assert [one["isthing"] for one in content["categories"]] == [0, 1, 1, 1]
    records = {record.id: record for record in RunReader(runs["names"]).records()}
    images = {one["id"]: one for one in content["images"]}
    counts: dict[tuple[int, int], int] = {}
    for one in content["annotations"]:
        name = images[one["image_id"]]["file_name"]
        if name == "a.jpg":
            assert one["score"] == pytest.approx(float(records["a"].scores[one["category_id"] - 1]), abs=1e-7)
        key = (one["image_id"], one["category_id"])
        counts[key] = counts.get(key, 0) + 1
    assert all(count == 1 for (_, category), count in counts.items() if category == 1)
    assert max(count for (_, category), count in counts.items() if category > 1) > 1
    found = READERS["coco"](tmp_path / "a")
    assert all(np.array_equal(found[one], labels) for one, labels in truth(runs["names"], ignored=False).items())


def test_coco_polygons_keep_holes(runs, tmp_path):
    summary = export_run(runs["names"], "coco", out=tmp_path / "a", polygons=True)
    assert summary.counts["holes"] > 0
    content = json.loads((tmp_path / "a" / "annotations" / "instances_train.json").read_text(encoding="utf-8"))
    assert all(isinstance(one["segmentation"], list) for one in content["annotations"])
    assert all(one["iscrowd"] == 0 for one in content["annotations"])
    found = READERS["coco"](tmp_path / "a")
    assert all(np.array_equal(found[one], labels) for one, labels in truth(runs["names"], ignored=False).items())


def test_image_ids_do_not_depend_on_the_order(runs, tmp_path):
    def numbers(out: Path) -> dict[str, int]:
        content = json.loads((out / "annotations" / "instances_train.json").read_text(encoding="utf-8"))
        return {one["file_name"]: one["id"] for one in content["images"]}

    export_run(runs["names"], "coco", out=tmp_path / "a")
    other = small_run(tmp_path / "other", photos=dict(reversed(PHOTOS.items())))
    export_run(other, "coco", out=tmp_path / "b")
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")


def test_panoptic_stuff_is_one_segment(runs, tmp_path):
    export_run(runs["names"], "coco-panoptic", out=tmp_path / "a", stuff=("cat", "hot dog"))
    content = json.loads((tmp_path / "a" / "annotations" / "panoptic_train.json").read_text(encoding="utf-8"))
    assert [one["isthing"] for one in content["categories"]] == [0, 0, 1, 1]
    for one in content["annotations"]:
        categories = [segment["category_id"] for segment in one["segments_info"]]
        assert categories.count(1) <= 1
        assert categories.count(2) <= 1
    found = READERS["coco-panoptic"](tmp_path / "a")
    assert all(np.array_equal(found[one], labels) for one, labels in truth(runs["names"], ignored=False).items())


def test_yolo_data_file_and_empty_images(runs, tmp_path):
    summary = export_run(runs["names"], "yolo", out=tmp_path / "a", split="train=0.5,val=0.25,test=0.25")
    data = yaml.safe_load((tmp_path / "a" / "data.yaml").read_text(encoding="utf-8"))
    assert data["path"] == str((tmp_path / "a").absolute())
    assert [data[one] for one in ("train", "val", "test")] == ["images/train", "images/val", "images/test"]
    assert list(data["names"].values()) == list(RunReader(runs["names"]).vocabulary.names)
    (empty,) = (tmp_path / "a" / "labels").glob(f"*/{NO_TAGS}.txt")
    assert empty.read_text() == ""
    assert summary.counts["small"] > 0
    assert any("parts of fewer than 10 pixels left out" in note for note in summary.notes)
    one = export_run(runs["names"], "yolo", out=tmp_path / "b")
    assert any("validates on the training images" in note for note in one.notes)


def test_voc_tags_and_label_map(runs, tmp_path):
    export_run(runs["names"], "voc", out=tmp_path / "a")
    lines = (tmp_path / "a" / "labelmap.txt").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "background:0,0,0::"
    assert lines[-1] == "ignored:224,224,192::"
    assert all(line.count(":") == 3 for line in lines)
    for record in RunReader(runs["names"]).records():
        name = export_names([record.id])[record.id]
        listed = {path.stem for path in (tmp_path / "a" / "ImageSets" / "Main").glob("*_train.txt")
                  if f"{name}  1" in path.read_text(encoding="utf-8").splitlines()}  # fmt: skip
        assert len(listed) == len(record.indices)


def test_cvat_ignored_as_a_label(runs, tmp_path):
    export_run(runs["names"], "cvat", out=tmp_path / "a", ignored="label")
    root = tmp_path / "a" / "segmentation-mask-1.1"
    assert (root / "labelmap.txt").read_text(encoding="utf-8").splitlines()[-1] == "ignored:224,224,192::"
    with Image.open(root / "SegmentationClass" / "a.png") as image:
        painted = (np.asarray(image) == (224, 224, 192)).all(-1)
    assert np.array_equal(painted, RunReader(runs["names"]).mask("a") == 255)
    assert (root / "ImageSets" / "Segmentation" / "default.txt").is_file()
    assert (tmp_path / "a" / "annotations.xml").is_file()


@pytest.mark.parametrize("run", ["wide", "plain", "wide and plain"])
def test_tables_of_every_run(run, runs, tmp_path):
    """Tables have no masks to be read back, but the same rows: unicode, folders, 300 classes, no tags, not failed."""
    reader = RunReader(runs[run])
    names, shift = reader.vocabulary.names, int(reader.vocabulary.has_background)
    for name in ("csv", "parquet"):
        summary = export_run(runs[run], name, out=tmp_path / name)
        assert (summary.images, summary.left_out) == (len(PHOTOS), {"failed in the run": 1})
    with (tmp_path / "csv" / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"].removeprefix("'"): row for row in csv.DictReader(file)}
    table = {row["id"]: row for row in pq.read_table(tmp_path / "parquet" / "images.parquet").to_pylist()}
    records = {record.id: record for record in reader.records()}
    assert rows.keys() == table.keys() == records.keys() == PHOTOS.keys()
    for one, record in records.items():
        tags = [names[index] for index in record.indices]
        assert json.loads(rows[one]["tags"]) == table[one]["tags"] == tags
        assert bool(tags) == (one != NO_TAGS)
        mask = reader.mask(one)
        for index in (0, len(names) - 1):
            key = f"coverage {names[index]}"
            assert float(rows[one][key]) == pytest.approx(table[one][key], abs=1e-6)
            assert table[one][key] == pytest.approx((mask == index + shift).mean(), abs=1e-6)


def test_photos_inside_parquet_are_upright(runs, tmp_path):
    summary = export_run(runs["names"], "hf", out=tmp_path / "a")
    assert summary.photos["upright"] == 3
    shapes = sorted(labels.shape for labels in truth(runs["names"], ignored=True).values())
    (path,) = (tmp_path / "a" / "data").glob("*.parquet")
    found = []
    for cell in pq.read_table(path, columns=["image"])["image"].to_pylist():
        with Image.open(io.BytesIO(cell["bytes"])) as image:
            assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            found.append(image.size[::-1])
    assert sorted(found) == shapes


def test_tables_hold_scores_and_harmless_names(runs, tmp_path):
    for name in ("csv", "parquet"):
        export_run(runs["names"], name, out=tmp_path / name, bom=name == "csv")
    raw = (tmp_path / "csv" / "images.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(raw.decode("utf-8-sig").splitlines()))
    table = pq.read_table(tmp_path / "parquet" / "images.parquet").to_pylist()
    records = list(RunReader(runs["names"]).records())
    names = RunReader(runs["names"]).vocabulary.names
    assert [row["id"] for row in table] == [record.id for record in records]
    assert [row["id"] for row in rows] == ["'=sum(a,b)" if r.id == "=sum(a,b)" else r.id for r in records]
    for record, row, other in zip(records, rows, table, strict=True):
        tags = [names[index] for index in record.indices]
        assert json.loads(row["tags"]) == other["tags"] == tags
        mask = RunReader(runs["names"]).mask(record.id)
        for index, label in enumerate(names):
            assert np.float32(row[f"score {label}"]) == np.float32(other[f"score {label}"]) == record.scores[index]
            assert float(row[f"coverage {label}"]) == pytest.approx((mask == index + 1).mean(), abs=1e-6)
        assert float(row["coverage (ignored)"]) == pytest.approx((mask == 255).mean(), abs=1e-6)
    assert not any(cell[:1] in "=+-@" for row in rows for cell in (*row, *row.values()) if cell)


def test_hugging_face_schema_and_card(runs, tmp_path):
    export_run(runs["names"], "hf", out=tmp_path / "a", split="train=0.6,val=0.4")
    (path,) = (tmp_path / "a" / "data").glob("val-*.parquet")
    assert path.name == "val-00000-of-00001.parquet"
    features = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == features["mask"] == {"_type": "Image"}
    assert features["tags"]["feature"]["names"] == list(RunReader(runs["names"]).vocabulary.names)
    card = (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert [one["split"] for one in head["configs"][0]["data_files"]] == ["train", "val"]


def test_label_studio_prefills_what_is_unsure_first(runs, tmp_path):
    export_run(runs["names"], "label-studio", out=tmp_path / "a")
    records = {record.id: record for record in RunReader(runs["names"]).records()}
    for task in json.loads((tmp_path / "a" / "tasks.json").read_text(encoding="utf-8")):
        record = records[task["data"]["id"]]
        (prediction,) = task["predictions"]
        if record.indices:
            assert prediction["score"] == pytest.approx(min(record.scores[list(record.indices)]), abs=1e-7)
        else:
            assert "score" not in prediction
        assert "#" not in task["data"]["image"]
        assert " " not in task["data"]["image"]


def test_fiftyone_loader_is_ten_lines_that_compile(runs, tmp_path):
    export_run(runs["names"], "fiftyone", out=tmp_path / "a")
    text = (tmp_path / "a" / "load_fiftyone.py").read_text(encoding="utf-8")
    compile(text, "load_fiftyone.py", "exec")
    assert len([line for line in text.splitlines() if not line.startswith("import")]) <= 10
    content = json.loads((tmp_path / "a" / "classifications.json").read_text(encoding="utf-8"))
    assert all((tmp_path / "a" / "data" / one["file"]).is_file() for one in content["images"])
    assert content["images"][0]["tags"][0].keys() == {"label", "confidence"}

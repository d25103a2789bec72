"""`tagclip reproduce` on tiny sets in the layouts of the real ones, with the demo model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.errors import RequirementError, UsageError
from tagclip.vocabulary import Vocabulary
from wsss.cli.main import execute
from wsss.files.mask_files import read_mask

MODEL = ("--model", "demo", "--threads", "1", "--quiet")
COCO, STUFF = Vocabulary.named("coco"), Vocabulary.named("cocostuff")


def scenes(count: int):
    """(name, RGB, label map of VOC labels) of drawn scenes."""
    voc = Vocabulary.named("voc")
    renderer = SceneRenderer(SceneConfig(side=(96, 120), object_side=(48, 70), objects=(1, 2), voc_share=1.0), 11)
    for number in range(count):
        scene = renderer(number)
        labels = np.zeros_like(scene.mask)
        for place, name in enumerate(scene.objects):
            labels[scene.mask == place + 1] = voc.index(name) + 1
        yield f"2007_{number:06}", scene.image, labels


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    """A VOC folder of seven photos, four of each list, without annotations."""
    root = tmp_path_factory.mktemp("VOC2012")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = []
    for name, image, labels in scenes(7):
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        Image.fromarray(labels).save(root / "SegmentationClass" / f"{name}.png")
        names.append(name)
    for split, chosen in (("train", names[:4]), ("val", names[3:])):
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in chosen))
    return root


def test_other_data_are_refused_with_what_differs(voc, tmp_path):
    with pytest.raises(UsageError) as caught:
        execute(["reproduce", "voc2012", "--data", str(voc), "--parts", "tags", "--out", str(tmp_path), *MODEL])
    assert "4 images, the published list has 1449" in str(caught.value)
    assert "--any-data" in str(caught.value)
    with pytest.raises(UsageError, match="has the parts tags, masks, true_tags, dense, deeplab"):
        execute(["reproduce", "voc2012", "--data", str(voc), "--parts", "masses", *MODEL])
    with pytest.raises(UsageError, match="usually data/VOCdevkit/VOC2012"):
        execute(["reproduce", "voc2012", "--data", str(tmp_path / "gone"), *MODEL])


def test_missing_files_are_named(voc, tmp_path):
    name = "2007_000005"
    photo = voc / "JPEGImages" / f"{name}.jpg"
    kept = photo.read_bytes()
    photo.unlink()
    try:
        with pytest.raises(UsageError, match=f"1 photos missing: {name}.jpg"):
            execute(["reproduce", "voc2012", "--data", str(voc), "--parts", "tags", "--out", str(tmp_path), *MODEL])
    finally:
        photo.write_bytes(kept)


def test_a_dry_run_shows_the_documented_commands(voc, tmp_path, capsys):
    code = execute([
        "reproduce", "voc2012", "--data", str(voc), "--any-data", "--dry-run", "--out", str(tmp_path / "out"),
        "--weights", "clip.pt", "--quiet",
    ])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert any(line.startswith("tagclip tag --config tagging/voc2012 --preset reference") for line in lines)
    assert all("--model ViT-B-16 --pretrained clip.pt" in line for line in lines if line.startswith("tagclip tag "))
    assert not any("deeplab" in line for line in lines)
    assert not (tmp_path / "out").exists()


@pytest.mark.pydensecrf
def test_voc_tags_masks_and_methods(voc, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["reproduce", "voc2012", "--data", str(voc), "--any-data", "--subset", "3", "--out", str(out), *MODEL,
            "--json", str(tmp_path / "figures.json")]  # fmt: skip
    assert execute([*call, "--parts", "tags", "masks", "true_tags"]) == 0
    found = json.loads((tmp_path / "figures.json").read_text())
    rows = {(row["part"], row["figure"]): row for row in found["figures"]}
    assert len(rows) == 7
    assert all(row["verdict"] == "other data" and row["images"] == 3 for row in rows.values())
    for row in rows.values():
        low, high = row["interval"]
        assert low <= high
        assert 0 <= row["measured"] <= 100
    assert rows["true_tags", "mIoU with CRF"]["measured"] > 40  # true tags, a model that knows such scenes
    report = (out / "report.md").read_text()
    assert "The data are not the published ones" in report
    assert "true tags are the classes of the true masks" in report
    assert "```bash\ntagclip tag --config tagging/voc2012" in report

    # A second call repeats nothing and says the same.
    before = (out / "masks.json").stat().st_mtime_ns
    assert execute([*call, "--parts", "tags", "masks", "true_tags"]) == 0
    assert (out / "masks.json").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "figures.json").read_text()) == found


def test_masks_without_pydensecrf_are_refused_before_any_work(voc, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    out = tmp_path / "out"
    call = ["reproduce", "voc2012", "--data", str(voc), "--any-data", "--subset", "1", "--out", str(out), *MODEL]
    with pytest.raises(RequirementError, match=r"as the reference preset has it, but .*pydensecrf"):
        execute([*call, "--parts", "tags", "masks"])
    assert not (out / "tags").exists()
    assert execute([*call, "--parts", "tags"]) == 0


def test_voc2007_by_its_annotations(voc, tmp_path):
    data = tmp_path / "VOC2007"
    (data / "ImageSets/Main").mkdir(parents=True)
    (data / "Annotations").mkdir()
    (data / "JPEGImages").symlink_to(voc / "JPEGImages")
    names = Vocabulary.named("voc").names
    ids = sorted(path.stem for path in (voc / "JPEGImages").iterdir())
    for name in ids:
        labels = set(np.unique(read_mask(voc / "SegmentationClass" / f"{name}.png"))) - {0}
        objects = "".join(f"<object><name>{names[label - 1]}</name></object>" for label in sorted(labels))
        (data / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    (data / "ImageSets/Main/test.txt").write_text("".join(f"{name}\n" for name in ids))
    call = ["reproduce", "voc2007", "--data", str(data), "--any-data", "--out", str(tmp_path / "out"), *MODEL,
            "--json", str(tmp_path / "figures.json")]  # fmt: skip
    assert execute(call) == 0
    [row] = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert row["figure"] == "mAP"
    assert row["interval"] is None
    assert row["measured"] > 50
    (data / "Annotations" / f"{ids[0]}.xml").unlink()
    with pytest.raises(UsageError, match=rf"1 annotations missing: {ids[0]}\.xml"):
        execute(call[:4] + call[5:])


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """A COCO folder of three photos with one rectangle each, instances and pixel maps."""
    root = tmp_path_factory.mktemp("coco")
    (root / "val2017").mkdir()
    (root / "annotations").mkdir()
    (root / "stuff/val2017").mkdir(parents=True)
    (root / "val2014").symlink_to(root / "val2017")
    images, annotations = [], []
    raw = sorted(range(1, 91))[:80]
    for number, (_, image, _) in enumerate(scenes(3)):
        name = f"{number:012}"
        height, width = image.shape[:2]
        Image.fromarray(image).save(root / "val2017" / f"{name}.jpg")
        images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        corners = [10, 10, 60, 10, 60, 50, 10, 50]
        annotations.append({"id": number, "image_id": number, "category_id": raw[number], "iscrowd": 0,
                            "area": 2000, "bbox": [10, 10, 50, 40], "segmentation": [corners]})  # fmt: skip
        pixels = np.full((height, width), 255, np.uint8)
        pixels[: height // 2] = 181
        pixels[10:50, 10:60] = 13  # a raw id with a gap before it: index 12
        Image.fromarray(pixels).save(root / "stuff/val2017" / f"{name}.png")
    categories = [{"id": number, "name": name} for number, name in zip(raw, COCO.names, strict=True)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    for year in ("2014", "2017"):
        (root / "annotations" / f"instances_val{year}.json").write_text(text)
    return root


@pytest.mark.pydensecrf
def test_coco_tags_and_masks(coco, tmp_path):
    pytest.importorskip("pycocotools")
    out = tmp_path / "out"
    call = ["reproduce", "coco2017", "--data", str(coco), "--any-data", "--out", str(out), *MODEL]
    assert execute([*call, "--json", str(tmp_path / "figures.json")]) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert len(rows) == 5
    assert all(row["measured"] is not None for row in rows)
    truth = read_mask(out / "truth" / f"{1:012}.png")
    assert set(np.unique(truth)) == {0, 2}
    assert (truth[12:48, 12:58] == 2).all()


def test_coco2014_tags(coco, tmp_path):
    call = ["reproduce", "coco2014", "--data", str(coco), "--any-data", "--out", str(tmp_path / "out"), *MODEL]
    assert execute([*call, "--json", str(tmp_path / "figures.json")]) == 0
    [row] = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert row["published"] == 68.8


@pytest.mark.pydensecrf
def test_cocostuff_by_its_pixel_maps(coco, tmp_path):
    out = tmp_path / "out"
    call = ["reproduce", "cocostuff", "--data", str(coco), "--any-data", "--subset", "2", "--out", str(out), *MODEL]
    assert execute([*call, "--json", str(tmp_path / "figures.json")]) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert len(rows) == 5
    [first, _] = sorted((out / "truth").iterdir())
    assert set(np.unique(read_mask(first))) == {STUFF.raw_ids.index(13), STUFF.raw_ids.index(181), 255}
    labels = (out / "lists" / "val_labels.txt").read_text().splitlines()
    assert labels[0].split()[1:] == [str(STUFF.raw_ids.index(13)), str(STUFF.raw_ids.index(181))]

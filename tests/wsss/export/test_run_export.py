"""What an export holds, what it refuses, what it leaves alone: the same for all formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tagclip.errors import RequirementError, RunError, UsageError
from tagclip.tag_files import TagCorrection, TagRecord, tag_line
from tagclip.vocabulary import Vocabulary
from tests.wsss.export.readers import BACKGROUND, IGNORED, READERS
from tests.wsss.export.small_runs import PHOTOS, small_run, write_photo
from tests.wsss.runs import contents
from wsss.export import FORMATS, export_run
from wsss.export.export_plan import export_names, stable_numbers
from wsss.export.format_writer import plain_names, unique_colours
from wsss.export.formats import ExportFormat
from wsss.files.run_reader import RunReader

FIRST = {name: PHOTOS[name] for name in ("a", "part one/a", "été/日本 猫")}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run. Do not write into it."""
    return small_run(tmp_path_factory.mktemp("run"))


def with_records(run: Path, change) -> Path:
    """A run whose records are changed by a function that gives the new one, or None for no change."""
    reader = RunReader(run)
    records = [change(record) or record for record in reader.records()]
    lines = [json.dumps(tag_line(record, reader.vocabulary)) + "\n" for record in records]
    (run / "tags.jsonl").write_text("".join(lines), encoding="utf-8")
    return run


def corrected(record: TagRecord, **said) -> TagRecord:
    return TagRecord(**{**record.__dict__, "correction": TagCorrection(record.indices, **said)})


def test_the_default_place_is_in_the_run(tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    summary = export_run(run, "csv")
    assert summary.out == run / "export" / "csv"
    assert (summary.out / "images.csv").is_file()
    assert not list((run / "export").glob(".*"))


@pytest.mark.parametrize("name", FORMATS)
def test_rejected_images_stay_out_and_checked_ones_can_be_chosen(name, tmp_path):
    def say(record):
        states = {"a": "rejected", "part one/a": "checked"}
        return corrected(record, state=states[record.id], note="blurred") if record.id in states else None

    run = with_records(small_run(tmp_path, photos=FIRST), say)
    summary = export_run(run, name, out=tmp_path / "all")
    assert (summary.images, summary.left_out["rejected"]) == (2, 1)
    summary = export_run(run, name, out=tmp_path / "checked", only_checked=True)
    assert (summary.images, summary.left_out) == (1, {"rejected": 1, "not checked": 1, "failed in the run": 1})
    if name in READERS and name != "mmseg":
        assert list(READERS[name](tmp_path / "checked", 1, 255)) == ["part one/a"]


@pytest.mark.parametrize("name", ["voc", "coco", "hf"])
def test_unsure_tags_become_ignored_pixels(name, run, tmp_path):
    records = {record.id: record for record in RunReader(run).records()}
    export_run(run, name, out=tmp_path / "a", min_confidence=0.9)
    found, names = READERS[name](tmp_path / "a", 1, 255), export_names(records)
    dropped = 0
    for image_id, record in records.items():
        mask = RunReader(run).mask(image_id).astype(np.int32) - 1
        mask[mask == 254] = IGNORED if name != "coco" else BACKGROUND
        for index in record.indices:
            if record.scores[index] < 0.9:
                dropped += 1
                mask[mask == index] = IGNORED if name != "coco" else BACKGROUND
        assert np.array_equal(found[names[image_id]], mask)
    assert dropped > 5


def test_a_confidence_is_the_mean_of_the_pixels_and_a_persons_tag_stays(tmp_path):
    run = small_run(tmp_path, photos=FIRST, confidence=True)
    first = {record.id: record.indices[0] for record in RunReader(run).records()}
    export_run(run, "coco", out=tmp_path / "scores")
    for one in _annotations(tmp_path / "scores"):
        assert one["confidence"] == pytest.approx(0.4 if one["first"] else 0.8, abs=1e-3)
    export_run(run, "coco", out=tmp_path / "sure", min_confidence=0.5)  # scores are from 0.65
    assert not any(one["first"] for one in _annotations(tmp_path / "sure"))
    assert _annotations(tmp_path / "sure")
    with_records(run, lambda record: corrected(record, added={first[record.id]: "me"}))
    export_run(run, "coco", out=tmp_path / "person", min_confidence=0.5)
    assert any(one["first"] for one in _annotations(tmp_path / "person"))


def _annotations(out: Path) -> list[dict]:
    """Annotations; "first": of the image's first tag."""
    content = json.loads((out / "annotations" / "instances_train.json").read_text(encoding="utf-8"))
    found = []
    for one in content["annotations"]:
        number = [image["id"] for image in content["images"]].index(one["image_id"])
        found.append({**one, "first": one["category_id"] - 1 == FIRST_TAGS[content["images"][number]["file_name"]]})
    return found


FIRST_TAGS = {"a.jpg": 0, "part one/a.jpg": 0, "été/日本 猫.png": 2}


@pytest.mark.parametrize("name", FORMATS)
def test_merging_keeps_what_is_there(name, tmp_path):
    """A data set of two images gets a third; the mask that a person changed there stays."""
    few = small_run(tmp_path / "few", photos=dict(list(FIRST.items())[:2]))
    export_run(few, name, out=tmp_path / "set")
    before = contents(tmp_path / "set", ())
    touched = _touch(tmp_path / "set", name)
    run = small_run(tmp_path / "more", photos=FIRST)
    summary = export_run(run, name, merge_into=tmp_path / "set")
    assert summary.images == 1
    assert summary.left_out["there already"] == 2
    assert summary.merged["added"] + summary.merged["combined"] >= 1
    after = contents(tmp_path / "set", ())
    assert before.keys() <= after.keys()
    if touched is not None:
        assert touched.read_bytes() == b"by hand"
    if name in READERS and touched is None and name != "mmseg":
        found = READERS[name](tmp_path / "set", 1, 255)
        assert sorted(found) == sorted(FIRST)
    again = export_run(run, name, merge_into=tmp_path / "set")
    assert (again.images, again.merged) == (0, {"added": 0, "combined": 0, "left_alone": 0})
    assert contents(tmp_path / "set", ()) == after


def _touch(root: Path, name: str) -> Path | None:
    """A file of annotations, changed by hand, of the formats that have one per image."""
    places = {"voc": "SegmentationClass", "yolo": "labels/train", "mmseg": "annotations/training", "fiftyone": "labels"}
    if name not in places:
        return None
    path = next(one for one in (root / places[name]).rglob("a.*") if one.parent.name != "part one")
    path.write_bytes(b"by hand")
    return path


def test_merging_into_a_foreign_coco_file_goes_by_class_names(tmp_path):
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    theirs = {
        "info": {"by": "them"},
        "images": [{"id": 7, "file_name": "theirs.jpg", "width": 4, "height": 4}],
        "annotations": [
            {"id": 3, "image_id": 7, "category_id": 90, "segmentation": [[0, 0, 2, 0, 2, 2]], "area": 2, "iscrowd": 0,
             "bbox": [0, 0, 2, 2], "theirs": True}
        ],
        "categories": [{"id": 90, "name": "hot dog"}, {"id": 5, "name": "zebra"}],
    }  # fmt: skip
    path = tmp_path / "set" / "annotations" / "instances_train.json"
    path.write_text(json.dumps(theirs))
    run = small_run(tmp_path / "run", photos=FIRST)
    export_run(run, "coco", merge_into=tmp_path / "set")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["info"] == {"by": "them"}
    assert content["images"][0] == theirs["images"][0]
    assert content["annotations"][0] == theirs["annotations"][0]
    names = {one["id"]: one["name"] for one in content["categories"]}
    assert (names[90], names[5]) == ("hot dog", "zebra")
    assert len(set(names.values())) == len(names) == 5
    ids = [one["id"] for one in content["annotations"]]
    assert len(set(ids)) == len(ids)
    records = {record.path: record for record in RunReader(run).records()}
    words, images = RunReader(run).vocabulary.names, {one["id"]: one["file_name"] for one in content["images"]}
    for one in content["annotations"][1:]:
        assert words.index(names[one["category_id"]]) in records[images[one["image_id"]]].indices
    assert not (tmp_path / "set" / ".tagclip").exists()


@pytest.mark.parametrize(
    "name", ["voc", "yolo", "mmseg", "label-studio", "datumaro", "fiftyone", "hf", "csv", "parquet"]
)
def test_merging_into_other_classes_is_refused(name, tmp_path):
    export_run(small_run(tmp_path / "few", photos=FIRST, classes=3), name, out=tmp_path / "set")
    before = contents(tmp_path / "set", ())
    run = small_run(tmp_path / "more")
    with pytest.raises(UsageError, match=r"--merge-into: .* has other classes: "):
        export_run(run, name, merge_into=tmp_path / "set")
    assert contents(tmp_path / "set", ()) == before
    assert not list(tmp_path.glob(".set*"))


def test_nothing_is_replaced_without_overwrite_and_nothing_of_others_with_it(tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    out = tmp_path / "out"
    export_run(run, "voc", out=out)
    with pytest.raises(UsageError, match=r"holds an export; --overwrite replaces it, --merge-into adds to it"):
        export_run(run, "voc", out=out)
    (out / "mine.txt").write_text("mine")
    (out / "JPEGImages" / "mine.jpg").write_text("mine")
    with_records(run, lambda record: corrected(record, state="rejected") if record.id == "a" else None)
    summary = export_run(run, "voc", out=out, overwrite=True)
    assert any("2 files that no export wrote were left alone" in note for note in summary.notes)
    assert (out / "mine.txt").read_text() == (out / "JPEGImages" / "mine.jpg").read_text() == "mine"
    assert not (out / "JPEGImages" / "a.jpg").exists()
    assert not (out / "SegmentationClass" / "a.png").exists()
    assert (out / "SegmentationClass" / "part one" / "a.png").is_file()


def test_a_folder_of_others_is_refused_even_with_overwrite(tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds files that are no export"):
            export_run(run, "voc", out=tmp_path / "out", overwrite=overwrite)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        export_run(run, "voc", out=tmp_path / "file")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_a_list_of_files_never_leads_out_of_the_folder(tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    export_run(run, "voc", out=tmp_path / "out")
    (tmp_path / "precious").write_text("mine")
    with (tmp_path / "out" / ".tagclip" / "files.txt").open("a") as file:
        file.write(f'"../precious"\n"{tmp_path / "precious"}"\nno json\n')
    export_run(run, "voc", out=tmp_path / "out", overwrite=True)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    run = small_run(tmp_path, photos=FIRST)
    from wsss.export.voc import VocWriter

    def fail(self) -> None:
        raise RunError("no space left")

    monkeypatch.setattr(VocWriter, "finish", fail)
    before = contents(tmp_path)
    with pytest.raises(RunError, match="no space left"):
        export_run(run, "voc")
    assert contents(tmp_path) == before
    assert not list((run / "export").iterdir())


def test_what_a_killed_export_left_is_removed(tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    left = run / "export" / ".voc.partial" / "JPEGImages"
    left.mkdir(parents=True)
    (left / "half.jpg").write_text("half")
    export_run(run, "voc")
    assert not (run / "export" / ".voc.partial").exists()
    assert not list((run / "export" / "voc").rglob("half.jpg"))


def test_damaged_images_are_told_and_the_others_exported(tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    (run / "masks" / "a.png").write_bytes(b"no mask")
    write_photo(tmp_path / "photos" / "part one" / "a.jpg", 20, 20, 1)
    summary = export_run(run, "coco", out=tmp_path / "out")
    assert summary.images == 1
    messages = {one["id"]: one["message"] for one in summary.failed}
    assert messages.keys() == {"a", "part one/a"}
    assert "was the photo changed?" in messages["part one/a"]
    assert [path.name for path in (tmp_path / "out" / "images").rglob("*.*")] == ["日本 猫.png"]
    with pytest.raises(RunError, match="2 of 3 images could not be exported; first: "):
        export_run(run, "coco", out=tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_photos_that_moved_are_asked_for_before_anything_is_written(tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    shutil.move(tmp_path / "photos", tmp_path / "moved")
    with pytest.raises(UsageError, match="--image-root DIR"):
        export_run(run, "voc")
    assert not (run / "export" / "voc").exists()
    assert export_run(run, "voc", image_root=tmp_path / "moved").images == 3
    assert export_run(run, "csv").images == 3
    assert export_run(run, "coco", photos="none").images == 3


@pytest.mark.parametrize("mode", ["symlink", "hardlink"])
def test_links_but_copies_of_turned_photos(mode, tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    summary = export_run(run, "voc", photos=mode)
    assert summary.photos == {"linked": 2, "upright": 1}
    assert any(f"a {mode} of them would show something else" in note for note in summary.notes)
    photo, target = tmp_path / "photos" / "a.jpg", summary.out / "JPEGImages" / "a.jpg"
    assert photo.samefile(target)
    assert target.is_symlink() == (mode == "symlink")
    turned = summary.out / "JPEGImages" / "part one" / "a.jpg"
    assert not turned.is_symlink()
    with Image.open(turned) as image, Image.open(tmp_path / "photos" / "part one" / "a.jpg") as stored:
        assert image.size == stored.size[::-1]
        assert stored.getexif()[ExifTags.Base.Orientation] == 6


def test_without_photos_the_recorded_paths_are_named_and_turned_ones_warned_of(tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    summary = export_run(run, "coco", photos="none")
    assert any("1 photo turned by EXIF" in note for note in summary.notes)
    content = json.loads((summary.out / "annotations" / "instances_train.json").read_text(encoding="utf-8"))
    assert all((tmp_path / "photos" / one["file_name"]).is_file() for one in content["images"])
    assert not (summary.out / "images").exists()
    assert str(tmp_path / "photos") in (summary.out / "README.md").read_text(encoding="utf-8")


def test_a_turned_photo_keeps_its_quality_and_its_other_tags(tmp_path):
    run = small_run(tmp_path, photos={"a": (".jpg", 6)})
    summary = export_run(run, "voc")
    with Image.open(summary.out / "JPEGImages" / "a.jpg") as image, Image.open(tmp_path / "photos" / "a.jpg") as stored:
        assert image.quantization == stored.quantization
        assert image.getexif()[ExifTags.Base.Artist] == "nobody"
        upright = np.asarray(stored.transpose(Image.Transpose.ROTATE_270)).astype(int)
        assert np.abs(np.asarray(image).astype(int) - upright).mean() < 1.5


def test_masks_of_stored_pixels_get_photos_without_a_turn(tmp_path):
    """The reference preset does not apply EXIF: the tag goes, the pixels stay."""
    run = small_run(tmp_path, photos={"a": (".jpg", 6)}, apply_exif=False)
    summary = export_run(run, "voc")
    with Image.open(summary.out / "JPEGImages" / "a.jpg") as image, Image.open(tmp_path / "photos" / "a.jpg") as stored:
        assert image.size == stored.size
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert any("without their EXIF orientation" in note for note in summary.notes)


def test_photos_that_few_tools_read_become_png(tmp_path):
    run = small_run(tmp_path, photos={"a": (".jpg", 1)})
    (tmp_path / "photos" / "a.jpg").unlink()
    rgb = np.random.default_rng(0).integers(0, 255, (90, 60, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "photos" / "a.ppm")
    with_records(run, lambda record: TagRecord(**{**record.__dict__, "path": "a.ppm"}))
    summary = export_run(run, "voc")
    assert summary.photos == {"png": 1}
    with Image.open(summary.out / "JPEGImages" / "a.png") as image:
        assert np.array_equal(np.asarray(image), rgb)
    summary = export_run(run, "mmseg")
    assert summary.photos == {"jpeg": 1}
    assert (summary.out / "images" / "training" / "a.jpg").is_file()


def test_a_dry_run_writes_nothing(run):
    before = contents(run)
    for name in FORMATS:
        summary = export_run(run, name, dry_run=True)
        assert summary.images == len(PHOTOS)
        assert summary.megabytes is not None
    assert contents(run) == before
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "cocoo"}, "'cocoo': is not one of voc, coco"),
        ({"photos": "move"}, "photos 'move' is not one of copy"),
        ({"instances": "blob"}, "instances 'blob' is not one of"),
        ({"min_confidence": 2}, "min_confidence 2 is not a number between 0 and 1"),
        ({"nonsense": 1}, "'nonsense' is not a setting"),
        ({"split": "a=2"}, "a share is above 0 and at most 1"),
        ({"stuff": ("zebra",)}, "'zebra' is neither a class nor a super-class"),
        ({"only_checked": True}, r"no image to export \(8 not checked, 1 failed in the run\)"),
        ({"merge_into": "nowhere"}, "--merge-into nowhere: no such folder"),
        ({"merge_into": "nowhere", "out": "x"}, "leave --out and --overwrite out"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(arguments, message, run, tmp_path):
    given = {"format": "coco", **({} if "merge_into" in arguments else {"out": tmp_path / "out"}), **arguments}
    with pytest.raises(UsageError, match=message):
        export_run(run, **given)
    assert not list(tmp_path.iterdir())


def test_not_a_run_and_a_run_without_masks(tmp_path):
    with pytest.raises(UsageError, match="give a run folder"):
        export_run(tmp_path, "coco")
    run = small_run(tmp_path / "run", photos=FIRST)
    (run / "masks" / "a.png").unlink()
    summary = export_run(run, "coco", out=tmp_path / "one")
    assert summary.left_out == {"without a mask": 1, "failed in the run": 1}
    shutil.rmtree(run / "masks")
    with pytest.raises(UsageError, match="has no masks, which --format coco needs"):
        export_run(run, "coco")
    assert export_run(run, "csv").images == 3


def test_a_missing_package_names_the_extra():
    missing = ExportFormat("odd", "wsss.export.voc", "VocWriter", "", ("no_such_package",))
    with pytest.raises(RequirementError, match=r"needs no_such_package: pip install 'tagclip-wsss\[export\]'"):
        missing.load()


def test_settings_that_a_format_has_no_use_for_are_told(run, tmp_path):
    summary = export_run(run, "csv", out=tmp_path / "a", polygons=True)
    assert "format csv does not use the setting polygons" in summary.notes


def test_names_that_no_list_can_hold_are_escaped_and_stay_unique():
    ids = ["a", "#a", "%23a", " b", "b ", '"q"', "line\nend", "été", "50% #2", "x/#y"]
    names = export_names(ids)
    assert len(set(names.values())) == len(ids)
    assert {one: names[one] for one in ("a", "été", "50% #2", "x/#y", "%23a")} == {
        one: one for one in ("a", "été", "50% #2", "x/#y", "%23a")
    }
    assert names["#a"] == "%%23a"
    assert names[" b"] == "%20b"
    assert names["line\nend"] == "line%0Aend"


def test_numbers_are_stable_and_unique():
    ids = [f"image {number}" for number in range(3000)]
    numbers = stable_numbers(ids)
    assert numbers == stable_numbers(reversed(ids))
    assert len(set(numbers.values())) == len(ids)
    assert all(0 < number < 2**31 for number in numbers.values())
    few = stable_numbers(ids[:10])
    assert all(numbers[one] == few[one] for one in ids[:10])


def test_numbers_that_collide_are_told_apart(monkeypatch):
    import wsss.export.export_plan as plan

    monkeypatch.setattr(plan, "LARGEST_NUMBER", 5)
    assert sorted(stable_numbers(["a", "b", "c", "d", "e"]).values()) == [1, 2, 3, 4, 5]


def test_memory_is_bounded_by_what_is_in_flight(tmp_path, monkeypatch):
    """Images are read while others are written, but never more than a few ahead."""
    import wsss.export.run_export as module

    run = small_run(tmp_path)
    alive, most = 0, 0
    prepare = module._Export._prepare

    def counted(self, *arguments):
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return prepare(self, *arguments)

    from wsss.export.voc import VocWriter

    add = VocWriter.add

    def written(self, sample):
        nonlocal alive
        alive -= 1
        add(self, sample)

    monkeypatch.setattr(module, "IN_FLIGHT", 2)
    monkeypatch.setattr(module._Export, "_prepare", counted)
    monkeypatch.setattr(VocWriter, "add", written)
    export_run(run, "voc")
    assert most <= 3


def test_an_empty_folder_is_used_and_a_link_to_one_too(tmp_path):
    run = small_run(tmp_path, photos=FIRST)
    (tmp_path / "empty").mkdir()
    export_run(run, "csv", out=tmp_path / "empty")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export_run(run, "csv", out=tmp_path / "link")
    assert (tmp_path / "empty" / "images.csv").read_bytes() == (tmp_path / "real" / "images.csv").read_bytes()


def test_a_photo_whose_name_is_no_text_can_be_named(tmp_path):
    run = small_run(tmp_path, photos={"a": (".jpg", 1)})
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    try:
        (tmp_path / "photos" / "a.jpg").rename(tmp_path / "photos" / odd)
    except OSError:
        pytest.skip("the file system holds only text")
    with_records(run, lambda record: TagRecord(**{**record.__dict__, "path": odd}))
    for name in FORMATS:
        assert export_run(run, name, out=tmp_path / name, photos="none").images == 1
    assert "caf%E9.jpg" in (tmp_path / "csv" / "images.csv").read_text(encoding="utf-8")
    assert export_run(run, "coco").images == 1


def test_colours_and_names_become_unique():
    palette = [(0, 0, 0), (9, 9, 9), (9, 9, 9), (0, 0, 0), (224, 224, 192)]
    words = Vocabulary(["a:b", "a,b", "c", "d"], palette=palette)
    colours = unique_colours(words).tolist()
    assert len({tuple(colour) for colour in colours}) == 5
    assert colours[:2] == [[0, 0, 0], [9, 9, 9]]
    assert [224, 224, 192] not in colours
    assert [0, 0, 0] not in unique_colours(Vocabulary(words.names, palette=palette, has_background=False)).tolist()
    assert plain_names(["a:b", "a,b", "c", "ignored"], ":,", ["ignored"]) == ["a_b", "a_b_2", "c", "ignored_2"]

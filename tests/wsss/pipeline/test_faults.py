"""What goes wrong around a run: photos that change meanwhile, folders nobody may write to, clocks, half files."""

import contextlib
import ctypes
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tagclip.errors import RunError, TagclipError, UsageError
from tests.tools.commands import command
from tests.wsss.pipeline.test_moving import SIZES, records
from tests.wsss.runs import contents, draw_images
from tests.wsss.segmentation import squares
from wsss.files.run_reader import RunReader
from wsss.pipeline.label_folder import tag_folder
from wsss.pipeline.mask_run import MaskRun
from wsss.pipeline.recipe import dataset_settings
from wsss.pipeline.remask import Remasking

CAP_DAC_OVERRIDE = 1
CAPABILITIES_V3 = 0x20080522


@pytest.fixture(scope="module")
def home(tmp_path_factory, golden_model_path):
    """A folder with `photos`, an undisturbed `run` over them, and `text`, where text classifiers are kept."""
    folder = tmp_path_factory.mktemp("home")
    draw_images(folder / "photos", SIZES)
    begin(golden_model_path, folder / "photos", folder / "run", folder / "text").execute()
    return folder


@pytest.fixture
def photos(home):
    """The photos of the run; whatever a test does to them, they are back afterwards."""
    folder = home / "photos"
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    yield folder
    for path, data in before.items():
        path.write_bytes(data)


@pytest.fixture
def undisturbed(home):
    """Every file of the undisturbed run, by digest."""
    return contents(home / "run")


@pytest.fixture
def run(home, tmp_path):
    """A copy of the run, to take something away from."""
    return Path(shutil.copytree(home / "run", tmp_path / "run"))


def begin(model, images, out, cache):
    """A run that has looked at its photos and not begun."""
    given = {
        "vocabulary": "cat,dog", "model.name": str(model), "model.pretrained": None, "images.source": str(images),
        "masks.refiner": "none", "work.mask_workers": 1, "out": str(out),
    }  # fmt: skip
    begun = MaskRun(dataset_settings("masks/custom", options=given), device="cpu", cache_dir=cache)
    assert begun.plan.images  # headers are read
    return begun


@pytest.fixture
def planned(home, golden_model_path):
    return lambda out: begin(golden_model_path, home / "photos", out, home / "text")


@pytest.fixture
def label(planned):
    return lambda out: planned(out).execute()


@pytest.fixture
def tag(home, golden_model_path):
    """Tags of the photos, or of another folder, into a folder."""
    return lambda out, images=home / "photos": tag_folder(
        images, ["cat", "dog"], out, model=golden_model_path, device="cpu", cache_dir=home / "text"
    )


def edit(photo: Path) -> bytes:
    """Another photo of the same width and height under the same name; returns the first one."""
    before = photo.read_bytes()
    with Image.open(photo) as image:
        Image.new("RGB", image.size, "red").save(photo)
    assert photo.stat().st_size != len(before)
    return before


def failures(run: Path) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in (run / "failures.jsonl").read_text().splitlines()]
    return {row["id"]: (row["stage"], row["message"]) for row in rows}


def test_photos_deleted_or_replaced_after_the_plan_fail_alone(photos, tmp_path, planned, label, undisturbed):
    out = tmp_path / "run"
    begun = planned(out)
    before = edit(photos / "part0" / "0.png")
    gone = photos / "part1" / "0.png"
    kept = gone.read_bytes()
    gone.unlink()
    assert begun.execute().counts["failures"] == 2
    found = failures(out)
    assert {name: stage for name, (stage, _) in found.items()} == {"part0/0": "decode", "part1/0": "decode"}
    assert "the file was changed after it had been looked at" in found["part0/0"][1]
    assert "No such file" in found["part1/0"][1]
    # A photo that is gone is told; back in its place, and the other one as it is now, both are done.
    assert label(out).counts["images"] == 2
    gone.write_bytes(kept)
    assert label(out).counts["failures"] == 0
    assert records(out)[0]["file_size"] == (photos / "part0" / "0.png").stat().st_size != len(before)
    made = contents(out)
    changed = {name for name in undisturbed if made[name] != undisturbed[name]}
    assert {"tags.jsonl", "manifest.json"} <= changed <= {
        "cams/part0/0.npz", "masks/part0/0.png", "tags.jsonl", "manifest.json"
    }  # fmt: skip


def test_a_photo_replaced_between_tags_and_mask_gets_no_mask_of_two_photos(
    home, photos, tmp_path, run, planned, label, undisturbed
):
    photo = photos / "part0" / "1.png"
    (run / "masks" / "part0" / "1.png").unlink()
    begun = planned(run)
    before = edit(photo)
    assert begun.execute().counts["failures"] == 1
    ((name, (stage, message)),) = failures(run).items()
    assert (name, stage) == ("part0/1", "masks")
    assert f"changed after it had been looked at ({len(before)} bytes then, {photo.stat().st_size} now)" in message
    assert not (run / "masks" / "part0" / "1.png").exists()
    # The next start knows that the tags are of another photo; the right one back in its place, it makes the mask.
    with pytest.raises(RunError, match=r"part0/1\.png: is not the photo that this run has tagged .*--overwrite"):
        label(run)
    with pytest.raises(RunError, match=r"1 masks could not be made: .*part0/1\.png: the file was changed"):
        Remasking.plan(home / "run", tmp_path / "masks", {"alpha": 2.0}).execute(1)
    photo.write_bytes(before)
    label(run)
    assert contents(run) == undisturbed


def test_a_photo_edited_after_a_run_is_refused_by_tagging_too(photos, tmp_path, tag):
    tag(tmp_path / "tags")
    made = contents(tmp_path / "tags")
    before = edit(photos / "part0" / "0.png")
    with pytest.raises(RunError, match=r"part0/0\.png: is not the photo that this run has tagged"):
        tag(tmp_path / "tags")
    (photos / "part0" / "0.png").write_bytes(before)
    tag(tmp_path / "tags")
    assert contents(tmp_path / "tags") == made


def test_names_that_are_not_utf8_are_written_so_that_their_photos_are_found(home, tmp_path, golden_model_path, tag):
    photos, out = tmp_path / "photos", tmp_path / "run"
    draw_images(photos, SIZES[:2])
    name = os.fsdecode(b"caf\xe9 1.png")
    try:
        (photos / "part0" / "0.png").rename(photos / "part0" / name)
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    begin(golden_model_path, photos, out, home / "text").execute()
    assert (out / "tags.jsonl").read_bytes().isascii()
    reader = RunReader(out)
    first, second = reader.records()
    assert (first.id, first.path) == ("part0/caf%E9 1", f"part0/{name}")
    assert [reader.photo(record) for record in (first, second)] == [photos / "part0" / name, photos / "part1" / "0.png"]
    assert reader.mask(first.id).shape == first.size
    made = contents(out)
    assert begin(golden_model_path, photos, out, home / "text").execute().times is None  # known again
    assert contents(out) == made
    moved = photos.rename(tmp_path / "moved")
    assert reader.photo(first, moved) == moved / "part0" / name
    Remasking.plan(out, tmp_path / "masks", {}, image_root=moved).execute(1)
    again, mask = (folder / "part0" / "caf%E9 1.png" for folder in (tmp_path / "masks", out / "masks"))
    assert again.read_bytes() == mask.read_bytes()
    tagged = tag(tmp_path / "tags", moved)
    assert [record.path for record in tagged.records()] == [first.path, second.path]
    assert (tagged.root / "tags.txt").read_text().startswith("part0/caf%E9 1\t")


@contextlib.contextmanager
def without_rights(folder: Path):
    """As a user who may not write into `folder`; the superuser gives up the power to ignore rights meanwhile."""
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
    powers = libc.capget(header, data) == 0 and data[0]
    if powers:
        data[0] = powers & ~(1 << CAP_DAC_OVERRIDE)
        assert libc.capset(header, data) == 0
    try:
        yield
    finally:
        if powers:
            data[0] = powers
            assert libc.capset(header, data) == 0
        folder.chmod(mode)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rights and capabilities of Linux")
@pytest.mark.parametrize("name", ["run", "tag", "mask", "remask", "segment", "train"])
def test_an_output_that_may_not_be_written_is_one_line(name, home, folders, tmp_path, golden_model_path):
    locked, config, checkpoint = tmp_path / "locked", tmp_path / "squares.py", tmp_path / "squares.pth"
    locked.mkdir()
    model = ["--images", str(home / "photos"), "--classes", "cat,dog", "--model", str(golden_model_path),
             "--device", "cpu", "--cache-dir", str(home / "text")]  # fmt: skip
    arguments = {
        "run": model,
        "tag": model,
        "mask": [*model, "--tags", str(home / "run")],
        "remask": ["--run", str(home / "run")],
        "segment": ["--images", str(home / "photos"), "--checkpoint", str(checkpoint)],
        "train": ["--run", str(folders / "run"), "--val", str(folders / "val"), "--config", str(config)],
    }[name]
    config.write_text(squares.CONFIG)
    if name == "segment":
        command("train")([*["--run", str(folders / "run"), "--config", str(config)], "--iterations", "2",
                          "--out", str(tmp_path / "work"), "--quiet"])  # fmt: skip
        (tmp_path / "work" / "iter_2.pth").rename(checkpoint)
    with without_rights(locked), pytest.raises(TagclipError, match=r"locked/it.*: cannot be written \(Perm") as caught:
        command(name)([*arguments, "--out", str(locked / "it"), "--quiet"])
    assert "\n" not in str(caught.value)
    assert not list(locked.iterdir())


def test_a_clock_that_jumps_back_changes_nothing(photos, tmp_path, label, undisturbed, monkeypatch):
    """Nothing is decided by the time of day; a run that is resumed "before" it began, with files "from the future"."""
    out = tmp_path / "run"
    start, jumps = time.time(), iter(range(0, 10**9, 3600))
    monkeypatch.setattr(time, "time", lambda: start - next(jumps))
    monkeypatch.setattr(time, "strftime", lambda *args: "1970-01-01 00:00:00")
    label(out)
    assert contents(out) == undisturbed
    (out / "masks" / "part0" / "0.png").unlink()
    (out / "cams" / "part0" / "1.npz").unlink()
    for moment, path in enumerate(sorted(path for path in (*out.rglob("*"), *photos.rglob("*")) if path.is_file())):
        os.utime(path, (start + 1e6 * (-1) ** moment, start + 1e6 * (-1) ** moment))
    label(out)
    assert contents(out) == undisturbed


@pytest.mark.parametrize("keep", [0, 40, -2])
def test_a_truncated_manifest_is_one_line_for_every_command(run, home, tmp_path, label, tag, keep):
    path = run / "manifest.json"
    path.write_bytes(path.read_bytes()[:keep])
    message = r"manifest\.json: damaged \(.*\); start anew with --overwrite"
    with pytest.raises(RunError, match=message):
        label(run)
    with pytest.raises(RunError, match=message):
        Remasking.plan(run, tmp_path / "masks", {})
    with pytest.raises(RunError, match=message):
        command("train")(["--config", "demo/segmentation", "--run", str(run), "--out", str(tmp_path / "train")])
    with pytest.raises(RunError, match=message):
        tag(run)
    assert not (tmp_path / "masks").exists()


def test_a_truncated_record_of_masks_is_one_line(home, tmp_path):
    masks = tmp_path / "masks"
    Remasking.plan(home / "run", masks, {}).execute(1)
    record = masks / "masks.json"
    record.write_bytes(record.read_bytes()[:30])
    with pytest.raises(RunError, match=r"masks\.json: damaged \(.*\); choose another folder"):
        Remasking.plan(home / "run", masks, {})


@pytest.mark.parametrize("keep", [0, 5, -1, -10])
@pytest.mark.parametrize("stage", ["run", "tag"])
def test_a_truncated_journal_loses_its_last_records_only(stage, keep, home, tmp_path, label, tag):
    whole, cut = home / stage, tmp_path / "cut"
    if not whole.exists():
        tag(whole)
    shutil.copytree(whole, cut)
    # As a kill leaves it: the records are in the journal of an unfinished run.
    (cut / ".partial").mkdir()
    text = (cut / "tags.jsonl").read_bytes()
    (cut / "tags.jsonl").unlink()
    (cut / ".partial" / "tags.jsonl").write_bytes(text[:keep])
    manifest = json.loads((cut / "manifest.json").read_text())
    (cut / "manifest.json").write_text(json.dumps({**manifest, "state": "running"}))
    {"run": label, "tag": tag}[stage](cut)
    assert contents(cut) == contents(whole)


@pytest.mark.parametrize("keep", [0, 20, -3])
def test_truncated_tags_of_a_finished_run(run, home, tmp_path, golden_model_path, label, undisturbed, keep):
    """A resumed run makes them again; commands that read the run say which line is damaged."""
    path = run / "tags.jsonl"
    path.write_bytes(path.read_bytes()[:keep])
    readers = [
        lambda: Remasking.plan(run, tmp_path / "masks", {}),
        lambda: command("train")(["--config", "demo/segmentation", "--run", str(run), "--classes", "cat,dog", "--out",
                                  str(tmp_path / "train")]),
        lambda: command("mask")(["--tags", str(run), "--images", str(home / "photos"), "--classes", "cat,dog",
                                 "--model", str(golden_model_path), "--out", str(tmp_path / "m"), "--device", "cpu"]),
    ]  # fmt: skip
    for reader in readers:
        with pytest.raises((RunError, UsageError), match=r"tags\.jsonl,? line \d: not |no images with masks|no tags"):
            reader()
    label(run)
    assert contents(run) == undisturbed

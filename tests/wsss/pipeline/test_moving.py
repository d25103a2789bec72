"""Runs whose photos, run folder or working directory are not where they were."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import ImageError, RunError
from tests.wsss.runs import draw_images
from wsss.configs import read_config
from wsss.files.sources import open_source
from wsss.pipeline.mask_run import MaskRun
from wsss.pipeline.recipe import dataset_settings
from wsss.pipeline.remask import Remasking
from wsss.review.strips import strips_of_run

SIZES = ((64, 48), (48, 64), (64, 48))


def label(model, images, out, **options):
    """A run of stage two over a folder, as the command line would do it."""
    given = {
        "vocabulary": "cat,dog", "model.name": str(model), "model.pretrained": None, "images.source": str(images),
        "masks.refiner": "none", "work.mask_workers": 1, "out": str(out), **options,
    }  # fmt: skip
    return MaskRun(dataset_settings("masks/custom", options=given), device="cpu").execute()


def records(run):
    return [json.loads(line) for line in (run / "tags.jsonl").read_text().splitlines()]


def photos_of(run):
    return [sample.image for sample in open_source(run).samples]


@pytest.fixture(scope="module")
def base(golden_model_path, tmp_path_factory):
    """Three photos and a run over them, made with paths relative to the working directory."""
    folder = tmp_path_factory.mktemp("base")
    draw_images(folder / "photos", SIZES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        label(golden_model_path, "photos", "run")
    return folder


@pytest.fixture
def copy(base, tmp_path):
    """A copy to move about; its run still names the photos of `base`."""
    shutil.copytree(base, tmp_path / "copy")
    return tmp_path / "copy"


def test_records_hold_paths_below_a_recorded_root_and_the_config_absolute_ones(base):
    found = records(base / "run")
    assert [record["path"] for record in found] == ["part0/0.png", "part0/1.png", "part1/0.png"]
    assert [record["file_size"] for record in found] == [
        (base / "photos" / record["path"]).stat().st_size for record in found
    ]
    assert json.loads((base / "run" / "manifest.json").read_text())["photos"]["root"] == str(base / "photos")
    assert read_config(base / "run" / "config.py").images.source == str(base / "photos")


def test_a_run_is_read_from_any_working_directory(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert photos_of(base / "run") == [base / "photos" / record["path"] for record in records(base / "run")]
    assert len(list(strips_of_run(base / "run"))) == 3


def test_moved_photos_and_run_are_found_by_their_root(copy, tmp_path):
    run = copy.rename(tmp_path / "moved") / "run"
    photos = tmp_path / "moved" / "photos"
    found = open_source(run, image_root=photos)
    assert [sample.image for sample in found.samples] == [photos / record["path"] for record in records(run)]
    assert len(list(strips_of_run(run, image_root=photos))) == 3
    remasking = Remasking.plan(run, tmp_path / "masks", {"alpha": 2.0}, image_root=photos)
    assert {job.image.parent.parent for job in remasking.jobs} == {photos}


def test_a_run_over_moved_photos_is_the_same_run(copy, tmp_path, golden_model_path):
    photos = (copy / "photos").rename(tmp_path / "elsewhere")
    before = (copy / "run" / "tags.jsonl").read_bytes()
    run = label(golden_model_path, photos, copy / "run")
    assert run.times is None  # nothing was left to do
    assert (copy / "run" / "tags.jsonl").read_bytes() == before
    assert photos_of(copy / "run")[0] == photos / "part0" / "0.png"


def test_other_photos_under_the_same_names_are_refused(copy, tmp_path, golden_model_path):
    others = tmp_path / "others"
    shutil.copytree(copy / "photos", others)
    noise = np.random.default_rng(5).integers(0, 256, (64, 48, 3), dtype=np.uint8)  # the size of the photo it replaces
    Image.fromarray(noise.transpose(1, 0, 2)).save(others / "part0" / "0.png")
    manifest = (copy / "run" / "manifest.json").read_bytes()
    with pytest.raises(RunError, match=r"others/part0/0\.png: is not the photo that this run has tagged .*bytes"):
        label(golden_model_path, others, copy / "run")
    assert (copy / "run" / "manifest.json").read_bytes() == manifest


def test_a_photo_that_was_repaired_is_no_other_photo(copy, golden_model_path):
    broken = copy / "photos" / "part1" / "0.png"
    good = broken.read_bytes()
    broken.write_bytes(good[:100])
    shutil.rmtree(copy / "run")
    assert label(golden_model_path, copy / "photos", copy / "run").counts["failures"] == 1
    broken.write_bytes(good)
    assert label(golden_model_path, copy / "photos", copy / "run").counts["failures"] == 0
    assert records(copy / "run")[2]["file_size"] == len(good)


def test_failures_name_the_photo_as_tags_do(copy, golden_model_path):
    (copy / "photos" / "part1" / "0.png").write_bytes(b"no image")
    shutil.rmtree(copy / "run")
    label(golden_model_path, copy / "photos", copy / "run")
    (failure,) = [json.loads(line) for line in (copy / "run" / "failures.jsonl").read_text().splitlines()]
    assert (failure["id"], failure["path"], failure["error"]) == ("part1/0", "part1/0.png", ImageError.__name__)

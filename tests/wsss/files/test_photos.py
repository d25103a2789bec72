"""Photos of a run are found where they were, where they have been moved to, and nowhere else."""

import json

import pytest

from tagclip.errors import RunError, UsageError
from wsss.files.photos import PhotoLocator
from wsss.files.run_folder import FORMAT


@pytest.fixture
def folder(tmp_path):
    """A run with a recorded root, and two roots with the same photo."""
    for name in ("old", "new"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a.b.jpg").touch()
    (tmp_path / "run").mkdir()
    manifest = {"format": FORMAT, "photos": {"root": str(tmp_path / "old"), "sizes": ""}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_below_the_recorded_root_wherever_the_command_runs(folder, monkeypatch):
    monkeypatch.chdir(folder / "new")
    found = PhotoLocator.of_run(folder / "run").find("sub/a.b", "sub/a.b.jpg")
    assert found == folder / "old" / "sub" / "a.b.jpg"


def test_below_a_root_that_is_given(folder):
    locator = PhotoLocator.of_run(folder / "run", folder / "new")
    assert locator.find("sub/a.b", "sub/a.b.jpg") == folder / "new" / "sub" / "a.b.jpg"


@pytest.mark.parametrize("image_id", ["sub/a.b", "sub/a.b.jpg"])
def test_absolute_records_are_looked_up_by_id_after_a_move(folder, image_id):
    path = str(folder / "old" / "sub" / "a.b.jpg")
    assert PhotoLocator(folder / "run", None).find(image_id, path) == folder / "old" / "sub" / "a.b.jpg"
    moved = PhotoLocator.of_run(folder / "run", folder / "new")
    assert moved.find(image_id, path) == folder / "new" / "sub" / "a.b.jpg"


def test_a_run_of_an_older_version_has_paths_of_its_command_line(folder, monkeypatch):
    (folder / "run" / "manifest.json").write_text(json.dumps({"format": FORMAT}))
    locator = PhotoLocator.of_run(folder / "run")
    monkeypatch.chdir(folder)
    assert locator.find("sub/a.b", "old/sub/a.b.jpg").is_file()
    monkeypatch.chdir(folder / "old")
    with pytest.raises(UsageError, match="does not exist"):
        locator.find("sub/a.b", "old/sub/a.b.jpg")


def test_a_photo_that_is_nowhere(folder):
    (folder / "old" / "sub" / "a.b.jpg").unlink()
    with pytest.raises(UsageError, match=r"run: its photo .*old/sub/a\.b\.jpg does not exist; .*--image-root DIR"):
        PhotoLocator.of_run(folder / "run").find("sub/a.b", "sub/a.b.jpg")
    with pytest.raises(UsageError, match=r"--image-root .*other: no such folder"):
        PhotoLocator.of_run(folder / "run", folder / "other")


def test_a_damaged_manifest(folder):
    (folder / "run" / "manifest.json").write_text("{")
    with pytest.raises(RunError, match=r"manifest\.json: damaged"):
        PhotoLocator.of_run(folder / "run")

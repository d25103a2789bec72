"""Masks from the maps of a finished run, with other settings."""

import hashlib
import json
import shutil

import pytest

from tagclip.errors import RunError, UsageError
from tests.tools.commands import command
from tests.wsss.runs import SIZES, VOCABULARY, complete
from wsss.files.classes import folder_vocabulary
from wsss.files.locks import folder_lock
from wsss.pipeline.given_tags import read_given_tags
from wsss.pipeline.remask import Remasking, mask_changes


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.png")
    }


def remask(run, out, **changes):
    work = Remasking.plan(run, out, changes)
    work.execute(1)
    return work


def test_unchanged_settings_give_the_runs_masks(finished, tmp_path):
    seen = []
    work = Remasking.plan(finished.run, tmp_path / "same", {})
    work.execute(1, progress=seen.append)
    assert digests(tmp_path / "same") == digests(finished.run / "masks")
    assert seen == list(range(1, len(SIZES) + 1))
    assert not (tmp_path / "same" / ".partial").exists()
    assert folder_vocabulary(tmp_path / "same") == VOCABULARY


@pytest.mark.parametrize("changes", [{"confidence": 0.9}, {"refiner": "none", "confidence": None}, {"refiner": "pamr"}])
def test_changed_settings_give_the_masks_of_a_run_with_them(finished, golden_clip, tmp_path, changes):
    tags = read_given_tags(finished.run, VOCABULARY)
    complete(golden_clip, finished.images, tmp_path / "run", tags=tags, cache_dir=finished.cache, **changes)
    remask(finished.run, tmp_path / "again", **changes)
    assert digests(tmp_path / "again") == digests(tmp_path / "run" / "masks") != digests(finished.run / "masks")


def test_the_tool_goes_on_and_keeps_settings_apart(finished, tmp_path, capsys):
    tool, out = command("remask"), tmp_path / "masks"
    options = ["--run", str(finished.run), "--out", str(out)]
    few = [*options, "--set", "masks.crf.iterations=2", "--mask-workers", "1"]
    assert tool(few) == 0
    assert f"{len(SIZES)} masks in" in capsys.readouterr().out
    assert json.loads((out / "masks.json").read_text())["masks"]["crf"]["iterations"] == 2
    before = digests(out)
    (out / "part0" / "0.png").unlink()
    (out / ".partial").mkdir()
    (out / ".partial" / "1-0").write_bytes(b"half a mask")  # as a kill leaves it
    kept = (out / "part1" / "0.png").stat().st_mtime_ns
    tool(few)
    assert digests(out) == before
    assert not (out / ".partial").exists()
    assert (out / "part1" / "0.png").stat().st_mtime_ns == kept
    with pytest.raises(RunError, match=r"masks\.crf\.iterations 2 there, 10 here"):
        tool(options)
    tool([*options, "--overwrite"])
    assert digests(out) == digests(finished.run / "masks")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"masks.cam.epsilon": 1e-6}, r"masks\.cam: the maps depend on it"),
        ({"masks.alpha": -1.0}, "alpha -1.0 must be positive"),
        ({"masks.nonsense": 1}, r"masks\.nonsense"),
        ({"tagging.rule.threshold": 0.1}, r"only masks\.\* can be set"),
    ],
)
def test_wrong_settings_are_named(finished, tmp_path, option, text):
    with pytest.raises(UsageError, match=text):
        Remasking.plan(finished.run, tmp_path / "out", mask_changes(option))
    assert not (tmp_path / "out").exists()


def test_wrong_folders_are_named(finished, tmp_path):
    with pytest.raises(UsageError, match="no run of stage two"):
        Remasking.plan(tmp_path, tmp_path / "out", {})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="holds other files"):
        Remasking.plan(finished.run, tmp_path / "full", {})
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_damaged_maps_are_named_after_all_others_are_done(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    (run / "cams" / "part0" / "1.npz").write_bytes(b"no maps")
    with pytest.raises(RunError, match=r"1 masks could not be made: .*part0/1\.npz: damaged class maps"):
        remask(run, tmp_path / "out")
    assert len(digests(tmp_path / "out")) == len(SIZES) - 1


def test_two_processes_do_not_make_masks_in_one_folder(finished, tmp_path):
    work = Remasking.plan(finished.run, tmp_path / "masks", {})
    with folder_lock(tmp_path / "masks", "--out x"):
        with pytest.raises(RunError, match="another process is working in this folder"):
            work.execute(1)
        with pytest.raises(RunError, match="another process is working in this folder"):
            Remasking.plan(finished.run, tmp_path / "masks", {})
    work.execute(1)
    assert digests(tmp_path / "masks") == digests(finished.run / "masks")

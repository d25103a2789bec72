"""The same command on a finished run: it is found finished quickly, and what is missing or damaged is made again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wsss.runs import draw_images
from wsss.cli.main import execute
from wsss.files import run_folder
from wsss.files.journal import Journal

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "open_clip", "torchvision", "mmcv")
PROBE = """
import json, sys
from wsss.cli.main import execute
code = execute(sys.argv[1:])
print(json.dumps([code, [name for name in {heavy!r} if name in sys.modules]]))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    draw_images(folder)
    return folder


def line(command, photos, out, *more):
    return [
        command, "--images", str(photos), "--classes", "voc", "--model", "demo", "--out", str(out), "--device", "cpu",
        "--quiet", *(["--refine", "none", "--save-confidence"] if command == "run" else []), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module", params=["run", "tag", "run tar", "tag tar"])
def finished(request, photos, tmp_path_factory):
    """Command line of a finished run, its folder, and its files."""
    command, _, layout = request.param.partition(" ")
    out = tmp_path_factory.mktemp(command) / "out"
    words = line(command, photos, out, *(["--layout", layout] if layout else []))
    assert execute(words) == 0
    return words, out, files(out)


def files(out):
    # The log tells of every start, and the times differ.
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*")) if path.is_file() and path.name not in ("log.txt", "times.json")
    }  # fmt: skip


def test_a_finished_run_needs_no_torch(finished):
    words, out, before = finished
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]
    assert files(out) == before


def test_its_records_are_not_read(finished, monkeypatch):
    words, out, before = finished
    indexed = []
    index = Journal._index
    monkeypatch.setattr(Journal, "_index", staticmethod(lambda path, *a: indexed.append(path.name) or index(path, *a)))
    assert execute(words) == 0
    assert "tags.jsonl" not in indexed
    assert files(out) == before


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A finished run of two photos, and a folder that lies beside them."""
    top = tmp_path_factory.mktemp("whole")
    for path in sorted(photos.rglob("*.png"))[:2]:
        (top / "photos").mkdir(exist_ok=True)
        (top / "photos" / f"{path.parent.name}{path.name}").write_bytes(path.read_bytes())
    assert execute(line("run", top / "photos", top / "out")) == 0
    return top


@pytest.mark.parametrize("kind", ["masks", "cams", "confidence"])
@pytest.mark.parametrize("damage", ["gone", "empty", "short"])
def test_what_is_missing_is_made_again(whole, tmp_path, kind, damage):
    shutil.copytree(whole / "out", tmp_path / "out")
    words = line("run", whole / "photos", tmp_path / "out")
    before = files(tmp_path / "out")
    path = sorted(path for path in (tmp_path / "out" / kind).rglob("*") if path.is_file())[1]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-9])
    assert execute(words) == 0
    if damage == "short" and kind == "cams":  # looked at only when a mask is made from them
        before[path.relative_to(tmp_path / "out").as_posix()] = path.read_bytes()
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("many", [2, 3])
def test_masks_of_very_many_images_are_read_only_if_they_are_newer(whole, tmp_path, monkeypatch, many):
    shutil.copytree(whole / "out", tmp_path / "out")
    read, is_whole = [], run_folder.is_whole
    monkeypatch.setattr(run_folder, "MANY", many)
    monkeypatch.setattr(run_folder, "is_whole", lambda path: read.append(Path(path).name) or is_whole(path))
    words, mask = line("run", whole / "photos", tmp_path / "out"), next((tmp_path / "out" / "masks").glob("*.png"))
    assert execute(words) == 0
    assert len(read) == (0 if many == 2 else 4)  # masks and confidences
    os.utime(mask)
    read.clear()
    assert execute(words) == 0
    assert read == [mask.name] if many == 2 else len(read) == 4


def test_a_run_of_very_many_images_is_on_the_disk_before_it_is_finished(whole, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(run_folder, "MANY", 2)
    monkeypatch.setattr(run_folder.os, "sync", lambda: seen.append(json.loads(manifest.read_text())["state"]))
    manifest = tmp_path / "out" / "manifest.json"
    assert execute(line("run", whole / "photos", tmp_path / "out")) == 0
    assert seen == ["running"]


def test_a_list_of_tags_that_is_gone_is_written_again(photos, tmp_path):
    words = line("tag", photos, tmp_path / "out")
    assert execute(words) == 0
    before = files(tmp_path / "out")
    (tmp_path / "out" / "tags.txt").unlink()
    assert execute(words) == 0
    assert files(tmp_path / "out") == before


def test_failures_are_tried_again(whole, tmp_path):
    folder = shutil.copytree(whole / "photos", tmp_path / "photos")
    good = next(folder.glob("*.png")).read_bytes()
    (folder / "broken.png").write_bytes(good[:-200])
    words = line("run", folder, tmp_path / "out")
    assert execute(words) == 0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]["failures"] == 1
    (folder / "broken.png").write_bytes(good)
    assert execute(words) == 0
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]["failures"] == 0

"""`tagclip export`: what it shows, writes and refuses."""

import json

import pytest

from tests.wsss.export.small_runs import PHOTOS, small_run
from wsss.cli.main import execute
from wsss.export import FORMATS

FIRST = {name: PHOTOS[name] for name in ("a", "part one/a", "été/日本 猫")}


@pytest.fixture
def run(tmp_path):
    return small_run(tmp_path, photos=FIRST)


def test_several_formats_and_what_it_says(run, capsys):
    words = ["export", "--run", str(run), "--format", "coco", "yolo", "--split", "train=0.5,val=0.5", "--quiet"]
    assert execute(words) == 0
    shown = capsys.readouterr().out
    assert f"coco: 3 images exported (train 2, val 1): {run / 'export' / 'coco'}" in shown
    assert "left out: 1 failed in the run" in shown
    assert "1 photo with an EXIF orientation: turned upright" in shown
    assert (run / "export" / "yolo" / "data.yaml").is_file()
    again = ["export", "--run", str(run), "--format", "coco", "--merge-into", str(run / "export" / "coco"), "--quiet"]
    assert execute(again) == 0
    assert "3 images were there already, their annotations stay" in capsys.readouterr().out


def test_out_of_several_formats_has_a_folder_for_each(run, tmp_path):
    words = ["export", "--run", str(run), "--format", "csv", "parquet", "--out", str(tmp_path / "out"), "--quiet"]
    assert execute(words) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["csv", "parquet"]


def test_figures_as_json(run, capsys):
    assert execute(["export", "--run", str(run), "--format", "voc", "--dry-run", "--json", "-"]) == 0
    (figures,) = json.loads(capsys.readouterr().out)
    assert (figures["format"], figures["images"], figures["left_out"]) == ("voc", 3, {"failed in the run": 1})
    assert not (run / "export").exists()


@pytest.mark.parametrize("flag", ["--list-formats", "--list"])
def test_the_formats_are_listed_without_a_run(flag, capsys):
    assert execute(["export", flag]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(FORMATS)


def test_images_is_another_word_for_photos(run):
    assert execute(["export", "--run", str(run), "--format", "voc", "--images", "symlink", "--quiet"]) == 0
    assert (run / "export" / "voc" / "JPEGImages" / "a.jpg").is_symlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--run: needed"),
        (["--run", "x"], "--format: needed; --list-formats"),
        (["--run", "x", "--format", "coco", "voc", "--merge-into", "y"], "--merge-into: takes one --format"),
        (["--run", "nowhere", "--format", "coco"], "nowhere: no manifest.json there"),
    ],
)
def test_mistakes_are_one_line(words, message):
    from tagclip.errors import UsageError

    with pytest.raises(UsageError, match=message):
        execute(["export", *words])

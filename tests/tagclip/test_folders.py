"""The walk through a folder passes over what systems and other tools leave there."""

import os
import sys

import pytest

from tagclip.errors import UsageError
from tagclip.folders import files_by_id, nothing_found, walk_files


def test_only_the_files_meant_are_found(tmp_path):
    for name in (
        "b.png", "a.PNG", "s/c.v2.png", "x y.png", ".hidden.png", "._a.png", ".DS_Store", "Thumbs.db", "a.jpg",
        "desktop.ini", "__MACOSX/x.png", "@eaDir/y.png", ".git/d.png", "folder.png/e.png", "png",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert list(walk_files(tmp_path, ".png")) == [
        ("a", tmp_path / "a.PNG"), ("b", tmp_path / "b.png"), ("folder.png/e", tmp_path / "folder.png" / "e.png"),
        ("s/c.v2", tmp_path / "s" / "c.v2.png"), ("x y", tmp_path / "x y.png"),
    ]  # fmt: skip


def test_links_are_followed_once(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").touch()
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "linked").symlink_to(tmp_path / "data")
    assert list(files_by_id(tmp_path / "top", ".png")) == ["linked/a"]


def test_suffixes_that_differ_in_case(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "a.PNG").touch()
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("the file system takes them for one")
    with pytest.raises(UsageError, match="have the same id; remove one"):
        files_by_id(tmp_path, ".png")


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names are text there")
def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    assert list(files_by_id(tmp_path, ".png")) == ["caf%E9"]


def test_what_is_there_instead(tmp_path):
    assert nothing_found(tmp_path, ".png") == "no .png file in it"
    for name in ("a.jpg", "b.JPG", "c.bmp", "README", ".DS_Store"):
        (tmp_path / name).touch()
    assert nothing_found(tmp_path, ".png") == "no .png file in it (2 .jpg, 1 .bmp, 1 without suffix)"


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        files_by_id(tmp_path / "none", ".png")

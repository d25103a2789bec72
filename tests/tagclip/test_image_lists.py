"""Finding images: order and ids that do not depend on the machine, and lists that stay inside their root."""

import os
from pathlib import Path

import pytest

from tagclip.errors import UsageError
from tagclip.images import find_images


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def ids(found):
    return [image.id for image in found]


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    touch(root, "b.jpg", "a/z.PNG", "a/b.jpeg", "a10.webp", "a2.gif", "notes.txt", ".hidden.jpg", ".cache/x.jpg")
    return root


def test_folder_is_recursive_sorted_and_without_hidden_files(photos):
    found = find_images(photos)
    assert ids(found) == ["a/b", "a/z", "a10", "a2", "b"]
    assert [image.path.relative_to(photos).as_posix() for image in found] == [
        "a/b.jpeg", "a/z.PNG", "a10.webp", "a2.gif", "b.jpg"
    ]  # fmt: skip


def test_order_does_not_depend_on_the_file_system(photos, monkeypatch):
    expected = find_images(photos)
    walk = os.walk

    def reversed_walk(*args, **kwargs):
        for folder, folders, files in walk(*args, **kwargs):
            folders.reverse()
            files.reverse()
            yield folder, folders, files

    monkeypatch.setattr(os, "walk", reversed_walk)
    assert find_images(photos) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg", "a.png", "b"]),
        (["a.jpg", "sub/a.jpg"], ["a", "sub/a"]),
        (["a.jpg", "a.jpg.png"], ["a", "a.jpg"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg", "a.jpg.png", "a.png"]),
        (["photo.v1.jpg", "photo.v2.jpg"], ["photo.v1", "photo.v2"]),
    ],
)
def test_ids_never_collide(tmp_path, names, expected):
    touch(tmp_path, *names)
    assert ids(find_images(tmp_path)) == expected


def test_linked_folders_are_followed_once(photos):
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    assert ids(find_images(photos)) == ["a/b", "a/z", "a10", "a2", "b"]


def test_globs(photos):
    assert ids(find_images(str(photos / "*"))) == ["a10", "a2", "b"]
    assert ids(find_images(str(photos / "**" / "b.*"))) == ["a/b", "b"]
    with pytest.raises(UsageError, match="no image matches"):
        find_images(str(photos / "*.tiff"))


def test_single_file_and_several_sources(photos):
    assert ids(find_images(photos / "a" / "z.PNG")) == ["z"]
    assert ids(find_images(photos / "a" / "z.PNG", root=photos)) == ["a/z"]
    assert ids(find_images([photos / "b.jpg", photos / "a", photos / "b.jpg"], root=photos)) == ["b", "a/b", "a/z"]
    with pytest.raises(UsageError, match="would share an id"):
        find_images([photos / "b.jpg", photos / "a" / "b.jpeg", _other(photos)])


def _other(photos):
    touch(photos, "other/b.jpg")
    return photos / "other" / "b.jpg"


def test_file_names_with_glob_characters(tmp_path):
    touch(tmp_path, "what [1].jpg")
    assert ids(find_images(tmp_path / "what [1].jpg")) == ["what [1]"]


def test_list_keeps_its_order(photos, tmp_path):
    touch(photos, "with blank.jpg")
    listing = tmp_path / "split.txt"
    listing.write_bytes("\ufeff# split\nb 3 7\n\na/z.PNG\nwith blank\nmissing 1\r\nb\n".encode())
    found = find_images(listing, root=photos)
    assert ids(found) == ["b", "a/z", "with blank", "missing"]
    assert found[3].path == photos / "missing"


def test_list_takes_its_own_folder_as_root(photos):
    (photos / "split.txt").write_text("a2\n")
    assert ids(find_images(photos / "split.txt")) == ["a2"]


def test_list_with_absolute_paths_inside_the_root(photos, tmp_path):
    (tmp_path / "split.txt").write_text(f"{photos / 'a' / 'b.jpeg'}\n")
    assert ids(find_images(tmp_path / "split.txt", root=photos)) == ["a/b"]


@pytest.mark.parametrize("line", ["../secret.jpg", "a/../../secret", "/etc/passwd", ".", "a/b/../../../secret.jpg"])
def test_list_lines_never_leave_the_root(photos, tmp_path, line):
    touch(tmp_path, "secret.jpg")
    (tmp_path / "split.txt").write_text(f"b\n{line}\n")
    with pytest.raises(UsageError, match=r"split.txt, line 2: .* the image root"):
        find_images(tmp_path / "split.txt", root=photos)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no image in it"),
        (b"missing\n", "none of its images is there"),
        (b"\xff\xfe\x00", "cannot be read as text"),
    ],
)
def test_bad_lists(photos, tmp_path, content, message):
    (tmp_path / "split.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        find_images(tmp_path / "split.txt", root=photos)


def test_nothing_there(tmp_path):
    (tmp_path / "notes.md").write_text("no photo\n")
    (tmp_path / "split.txt").write_text("a\n")
    with pytest.raises(UsageError, match="no image in it"):
        find_images(tmp_path)
    with pytest.raises(UsageError, match="no such file or folder"):
        find_images(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"image root .*: no such folder"):
        find_images(tmp_path / "split.txt", root=tmp_path / "missing")
    with pytest.raises(UsageError, match="no image given"):
        find_images([])


def test_unreadable_folder(photos, monkeypatch):
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("photos/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)  # permissions do not bind root, who may run the tests
    with pytest.raises(UsageError, match="photos/a: Permission denied"):
        find_images(photos)

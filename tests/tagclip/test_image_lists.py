"""Finding images: order and ids that do not depend on the machine, and lists that stay inside their root."""

import os
from pathlib import Path

import pytest

from tagclip import image_lists
from tagclip.errors import UsageError
from tagclip.folders import is_stray
from tagclip.image_formats import readable_suffixes
from tagclip.image_lists import find_images


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
        (b"\xff\xfe\x00", "not a text file in UTF-8"),
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


def test_what_systems_leave_beside_photos_is_no_photo(tmp_path):
    touch(tmp_path, "a.jpg", "._a.jpg", "Thumbs.db", ".DS_Store", "desktop.ini", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
          "__MACOSX/._a.jpg", "__MACOSX/b.jpg", ".Trash/c.jpg")  # fmt: skip
    assert ids(find_images(tmp_path)) == ["a"]
    assert ids(find_images(str(tmp_path / "**" / "*.jpg"))) == ["a"]


@pytest.mark.parametrize(
    ("name", "stray"),
    [("._a.jpg", True), ("THUMBS.DB", True), (".DS_Store", True), ("@eaDir", True), ("a.jpg", False), ("_a", False)],
)
def test_stray_names(name, stray):
    assert is_stray(name) is stray


def test_labelme_s_json_beside_the_photo_is_not_the_photo(tmp_path):
    touch(tmp_path, "a.json", "a.jpeg", "b.json")
    (tmp_path / "split.txt").write_text("a\nb\n")
    found = find_images(tmp_path / "split.txt")
    assert [image.path.name for image in found] == ["a.jpeg", "b"]


def test_every_suffix_of_an_image_in_any_case_is_found(tmp_path):
    names = [f"p{number}{suffix}" for number, suffix in enumerate(readable_suffixes())]
    touch(tmp_path, *names, "q.JpEg")
    found = find_images(tmp_path)
    assert sorted(image.path.name for image in found) == sorted([*names, "q.JpEg"])
    assert sorted(ids(found)) == sorted([name.split(".")[0] for name in names] + ["q"])
    listing = tmp_path / "split.txt"
    listing.write_text("".join(f"{image.id}\n" for image in found))
    assert find_images(listing) == found


def test_photos_that_are_not_read_are_counted_in_one_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(image_lists, "readable_suffixes", lambda: (".jpg",))
    touch(tmp_path, "a.jpg", "b.HEIC", "c.heic", "d.cr2", "sub/e.NEF", "notes.txt", "clip.mp4", ".hidden.heic")
    with caplog.at_level("WARNING"):
        assert ids(find_images(tmp_path)) == ["a"]
        assert ids(find_images(str(tmp_path / "*"))) == ["a"]
    folder, glob = caplog.messages
    remedy = "pip install 'tagclip-wsss[heif]' reads them"
    assert folder == (
        f"folder {tmp_path}: 4 photos left out, in formats that are not read: .heic 2 ({remedy}), .cr2 1, .nef 1"
    )
    assert "3 photos left out, in formats that are not read: .heic 2" in glob


def test_a_folder_of_nothing_but_other_photos_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(image_lists, "readable_suffixes", lambda: (".jpg",))
    touch(tmp_path, "b.heic", "c.dng")
    for source in (tmp_path, str(tmp_path / "*")):
        with pytest.raises(UsageError, match=r"no image .*2 photos left out, .*\.dng 1, \.heic 1 \(pip install"):
            find_images(source)


def test_nothing_is_said_where_nothing_is_left_out(photos, caplog):
    find_images(photos)
    assert not caplog.messages


def test_ids_do_not_depend_on_what_can_be_read_here(tmp_path, monkeypatch):
    monkeypatch.setattr(image_lists, "readable_suffixes", lambda: (".jpg",))
    touch(tmp_path, "a.heic")
    assert ids(find_images(tmp_path / "a.heic")) == ["a"]
    (tmp_path / "split.txt").write_text("a\n")
    assert find_images(tmp_path / "split.txt")[0].path.name == "a.heic"


def test_the_output_inside_the_photos_is_left_out(photos, monkeypatch):
    touch(photos, "run/masks/b.png", "run/sub/c.png", "a/run/d.png")
    for exclude in (photos / "run", str(photos / "run"), [photos / "run", photos / "nowhere"]):
        assert ids(find_images(photos, exclude=exclude)) == ["a/b", "a/run/d", "a/z", "a10", "a2", "b"]
        assert ids(find_images(str(photos / "**" / "*.png"), exclude=exclude)) == ["a/run/d"]
    monkeypatch.chdir(photos)
    assert "run/masks/b" not in ids(find_images(".", exclude="run"))
    assert "run/masks/b" in ids(find_images("."))


def test_the_output_is_left_out_under_another_name_too(photos):
    touch(photos, "run/masks/b.png")
    (photos / "link").symlink_to(photos / "run", target_is_directory=True)
    for exclude in (photos / "run", photos / "link"):
        assert "masks" not in " ".join(ids(find_images(photos, exclude=exclude)))


@pytest.mark.parametrize(
    "records",
    [("manifest.json", "config.py"), ("masks.json", "classes.json"), ("segmentation.json", "classes.json"),
     (".tagclip/export.json", ".tagclip/files.txt")],
)  # fmt: skip
def test_results_of_another_run_inside_the_photos_are_left_out(photos, records, caplog):
    touch(photos, "c.png")
    before = ids(find_images(photos))
    touch(photos, "old/masks/b.png", "old/overlays/c/d.png", "a/old/e.png")
    for folder in (photos / "old", photos / "a" / "old"):
        touch(folder, records[0])
    assert len(ids(find_images(photos))) == len(before) + 3  # one of the two files is nothing special
    assert not caplog.text
    for folder in (photos / "old", photos / "a" / "old"):
        touch(folder, records[1])
    assert ids(find_images(photos)) == before
    assert caplog.text.count("left out, it holds the results of another run") == 2
    assert ids(find_images(str(photos / "**" / "*.png"))) == ["c"]
    assert ids(find_images(photos / "old")) == ["masks/b", "overlays/c/d"]  # asked for by name


def test_photos_inside_the_output_are_found(photos):
    """--images photos/a --out photos: what holds the source itself is no reason to look away."""
    for exclude in (photos, photos / "a", photos.parent):
        assert ids(find_images(photos / "a", exclude=exclude)) == ["b", "z"]
        assert ids(find_images(str(photos / "a" / "*"), exclude=exclude)) == ["b", "z"]


def test_a_file_that_is_named_is_found_wherever_it_is(photos):
    (photos / "split.txt").write_text("a/b\n")
    assert ids(find_images(photos / "split.txt", exclude=photos / "a")) == ["a/b"]
    assert ids(find_images(photos / "a" / "b.jpeg", exclude=photos / "a")) == ["b"]


latin_1 = pytest.mark.skipif(os.name == "nt", reason="file names are text on Windows")


@latin_1
def test_names_that_are_not_utf_8_get_ids_that_are(tmp_path):
    """As archives of old systems unpack; a list finds them by their id, and by nothing else."""
    name = os.fsdecode(b"caf\xe9/\xfcber.jpg")
    touch(tmp_path, name, "caf\u00e9.jpg")
    found = find_images(tmp_path)
    assert sorted(ids(found)) == ["caf%E9/%FCber", "caf\u00e9"]
    assert all(image.path.is_file() for image in found)
    (tmp_path / "split.txt").write_text("caf%E9/%FCber\ncaf\u00e9.jpg\n")
    assert sorted(find_images(tmp_path / "split.txt"), key=str) == sorted(found, key=str)


@latin_1
def test_a_name_that_looks_like_another_s_id_gets_its_own(tmp_path):
    touch(tmp_path, os.fsdecode(b"caf\xe9.jpg"), "caf%E9.jpg", "caf%25E9.jpg", "my%20photo.jpg")
    found = {image.id: os.fsencode(image.path.name) for image in find_images(tmp_path)}
    assert found == {
        "caf%E9.jpg": b"caf\xe9.jpg",
        "caf%25E9.jpg": b"caf%E9.jpg",
        "caf%25E9": b"caf%25E9.jpg",
        "my%20photo": b"my%20photo.jpg",
    }


@latin_1
def test_names_that_windows_takes_for_something_else(tmp_path):
    touch(tmp_path, "a\\..\\..\\x.jpg", "C:y.jpg", "con.jpg", "12:30:05.jpg")
    assert ids(find_images(tmp_path)) == ["12:30:05", "C%3Ay", "a%5C..%5C..%5Cx", "%63on"]


def test_lists_made_on_windows(photos, tmp_path):
    (tmp_path / "split.txt").write_bytes("a\\b.jpeg\r\na\\z\r\n".encode("utf-16"))
    assert ids(find_images(tmp_path / "split.txt", root=photos)) == ["a/b", "a/z"]
    (tmp_path / "split.txt").write_text("b\n..\\..\\secret\n")
    with pytest.raises(UsageError, match=r"split.txt, line 2: .* the image root"):
        find_images(tmp_path / "split.txt", root=photos)


def test_list_lines_with_a_tab(photos, tmp_path):
    touch(photos, "with blank.jpg")
    (tmp_path / "split.txt").write_text("with blank\t3 7\nb\t1\nnot there\t2\n")
    assert ids(find_images(tmp_path / "split.txt", root=photos)) == ["with blank", "b", "not there"]


def test_an_id_with_several_files_takes_the_first_format_and_says_so(tmp_path, caplog):
    touch(tmp_path, "a.png", "a.jpg", "b.JPG", "b.jpg", "c.jpg")
    (tmp_path / "split.txt").write_text("a\na.png\nc\n")
    found = find_images(tmp_path / "split.txt")
    assert [(image.id, image.path.name) for image in found] == [("a.jpg", "a.jpg"), ("a.png", "a.png"), ("c", "c.jpg")]
    assert "1 ids have files of several formats, the first of .jpg" in caplog.text


def test_images_that_differ_in_their_suffix_alone_keep_their_ids_in_lists(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "sub/a.png")
    found = find_images(tmp_path)
    (tmp_path / "split.txt").write_text("".join(f"{image.id}\n" for image in found))
    assert find_images(tmp_path / "split.txt") == found


def test_unreadable_folder_of_a_list(photos, tmp_path, monkeypatch):
    (tmp_path / "split.txt").write_text("b.jpg\na/b\n")

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(UsageError, match=r"folder .*photos/a: Permission denied"):
        find_images(tmp_path / "split.txt", root=photos)


def test_paths_on_disk_are_relative_to_the_root_or_absolute(photos, monkeypatch):
    monkeypatch.chdir(photos)
    assert [file.recorded for file in find_images(".")] == [file.recorded for file in find_images(photos)]
    assert find_images("a/z.PNG")[0].recorded == "z.PNG"
    assert find_images("a/z.PNG", root=".")[0].recorded == "a/z.PNG"
    assert {file.root for file in find_images(str(photos / "**" / "b.*"))} == {photos}
    several = find_images(["a/z.PNG", "b.jpg"])
    assert [file.recorded for file in several] == [(photos / "a" / "z.PNG").as_posix(), (photos / "b.jpg").as_posix()]


def test_a_list_whose_images_are_elsewhere_names_the_option(photos, tmp_path):
    (tmp_path / "split.txt").write_text("a/b\n")
    with pytest.raises(UsageError, match=r"none of its images is there .*--image-root DIR"):
        find_images(tmp_path / "split.txt", root=tmp_path)


def test_a_line_longer_than_names_can_be_is_an_image_that_is_not_there(tmp_path):
    touch(tmp_path, "a.png")
    (tmp_path / "list.txt").write_text(f"a\n{'9' * 5000}\n")
    assert ids(find_images(tmp_path / "list.txt")) == ["a", "9" * 5000]
    (tmp_path / "list.txt").write_text("9" * 5000)
    with pytest.raises(UsageError, match="none of its images is there"):
        find_images(tmp_path / "list.txt")

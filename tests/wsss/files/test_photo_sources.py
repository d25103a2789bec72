"""Photos of every kind of source: ids, order, and what is refused."""

import json
import pickle
import sys

import fsspec
import numpy as np
import pytest
from PIL import Image

from tagclip.errors import ImageError, RequirementError, UsageError
from tagclip.images import decode_image, find_images, image_size, stored_orientation
from tagclip.stored_files import RemoteFile, is_url
from tagclip.vocabulary import Vocabulary
from tests.wsss.files.shards import files_of, split_in_two, upload, write_parquet, write_tar
from wsss.files.photo_sources import find_photos
from wsss.files.photos import PhotoLocator
from wsss.files.run_files import FORMAT


@pytest.fixture
def photos(tmp_path):
    """Five photos in two folders, and files that are none."""
    folder = tmp_path / "photos"
    for number in range(5):
        path = folder / ("part0", "part1")[number % 2] / f"{number}.{('png', 'jpg')[number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6 + number, 9, 3), 40 * number, np.uint8)).save(path)
    (folder / "part0" / "notes.json").write_text("{}")
    (folder / "._a.jpg").write_bytes(b"what macOS leaves")
    return folder


@pytest.fixture
def memory():
    """An empty store in the memory of this process."""
    fsspec.filesystem("memory").store.clear()
    yield "memory://bucket"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=["tar", "tars", "glob", "braces", "parquet", "objects", "tars in a store", "parquet in a store"])
def source(request, photos, tmp_path, memory):
    """The same photos in another form."""
    out = tmp_path / "shards"
    out.mkdir()
    if request.param == "tar":
        return str(write_tar(out / "all.tar", files_of(photos)))
    if request.param == "parquet":
        return str(write_parquet(out / "all.parquet", photos_only(photos, tmp_path)))
    if request.param == "objects":
        return upload(photos, f"{memory}/photos")
    if request.param == "parquet in a store":
        write_parquet(out / "all.parquet", photos_only(photos, tmp_path))
        return upload(out, f"{memory}/tables")
    split_in_two(photos, out)
    kinds = {"tars": str(out), "glob": f"{out}/*.tar", "braces": f"{out}/{{000..001}}.tar"}
    return kinds.get(request.param) or f"{upload(out, f'{memory}/shards')}/{{000..001}}.tar"


def photos_only(folder, tmp_path):
    """The folder without what is no photo."""
    kept = tmp_path / "kept"
    for file in find_images(folder):
        path = kept / file.recorded
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.path.read_bytes())
    return kept


def test_sources_hold_the_same_photos(photos, source):
    local, found = find_images(photos), find_photos(source)
    assert [(file.id, file.recorded, file.path.suffix) for file in found] == [
        (file.id, file.recorded, file.path.suffix) for file in local
    ]
    for mine, theirs in zip(local, found, strict=True):
        sent = pickle.loads(pickle.dumps(theirs.path))
        assert np.array_equal(decode_image(sent), decode_image(mine.path))
        assert image_size(theirs.path) == image_size(mine.path)
        assert stored_orientation(theirs.path) == stored_orientation(mine.path)
        assert theirs.path.stat().st_size == mine.path.stat().st_size
    assert len({file.root for file in found}) == 1


def test_a_run_finds_its_photos_again(photos, source, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    root = find_photos(source)[0].root
    manifest = {"format": FORMAT, "photos": {"root": [root] if isinstance(root, str) else list(root)}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    for locator in (PhotoLocator.of_run(run), PhotoLocator.of_run(run, source)):
        assert locator.find("part1/3", "part1/3.jpg").read_bytes() == (photos / "part1" / "3.jpg").read_bytes()
        assert locator.find("part1/3", None).name == "3.jpg"
        with pytest.raises(UsageError, match=r"its photo gone\.jpg is not in .*--image-root"):
            locator.find("gone", "gone.jpg")
    assert PhotoLocator.of_run(run, photos).find("part1/3", "part1/3.jpg") == photos / "part1" / "3.jpg"


def test_photos_that_are_gone_are_told(photos, tmp_path):
    shard = write_tar(tmp_path / "a.tar", files_of(photos))
    (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT, "photos": {"root": [str(shard)]}}))
    shard.unlink()
    with pytest.raises(UsageError, match=r"its photos are not there .*a\.tar.*--image-root"):
        PhotoLocator.of_run(tmp_path).find("part0/0", None)


def test_headers_cost_no_whole_picture(memory, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(rng.integers(0, 256, (800, 800, 3), dtype=np.uint8)).save(folder / "large.jpg", quality=95)
    upload(folder, memory)
    (found,) = find_photos(memory)
    read = []
    fetch = RemoteFile.fetch

    def counted(self, start, end):
        read.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(RemoteFile, "fetch", counted)
    assert image_size(found.path).height == 800
    assert sum(read) <= 1 << 17 < found.path.size
    read.clear()
    with found.path.open() as stream:
        assert stream.read() == (folder / "large.jpg").read_bytes()
    assert len(read) <= 4


def test_addresses_of_local_places(photos):
    assert list(find_photos(f"file://{photos}")) == find_images(photos)
    assert list(find_photos([f"file://{photos}/part0"])) == find_images([photos / "part0"])
    assert not is_url(f"file://{photos}")
    assert not is_url("c:/photos")
    assert is_url("s3://bucket/photos")


@pytest.mark.parametrize("place", ["memory", "tar"])
def test_lists_name_photos_of_stores(photos, memory, tmp_path, place):
    lines = "part1/3\npart0/0.png\n\n# a comment\npart1/1 1 0 1\ngone\n"
    if place == "memory":
        upload(photos, f"{memory}/photos")
        fsspec.filesystem("memory").pipe_file("bucket/photos/train.txt", lines.encode())
        found = find_photos(f"{memory}/photos/train.txt")
        assert found == find_photos(f"{memory}/photos/train.txt", root=f"{memory}/photos")
    else:
        write_tar(tmp_path / "a.tar", files_of(photos))
        (tmp_path / "train.txt").write_text(lines)
        found = find_photos(tmp_path / "train.txt", root=str(tmp_path / "a.tar"))
    assert [file.id for file in found] == ["part1/3", "part0/0", "part1/1", "gone"]
    assert found[0].path.read_bytes() == (photos / "part1" / "3.jpg").read_bytes()
    with pytest.raises(ImageError, match="gone: no such image"):
        image_size(found[-1].path)


def test_lists_that_lead_nowhere(photos, tmp_path):
    write_tar(tmp_path / "a.tar", files_of(photos))
    (tmp_path / "train.txt").write_text("x\ny\n")
    with pytest.raises(UsageError, match=r"none of its images is there .*--image-root PLACE"):
        find_photos(tmp_path / "train.txt", root=str(tmp_path / "a.tar"))
    (tmp_path / "train.txt").write_text("part0/0\n../x\n")
    with pytest.raises(UsageError, match=r"train.txt, line 2: '../x' is no path"):
        find_photos(tmp_path / "train.txt", root=str(tmp_path / "a.tar"))


def test_class_files_of_stores(memory):
    fsspec.filesystem("memory").pipe_file("bucket/pets.txt", b"cat\ndog\n")
    found = Vocabulary.load(f"{memory}/pets.txt")
    assert (found.names, found.name) == (("cat", "dog"), "pets")
    fsspec.filesystem("memory").pipe_file("bucket/bad.txt", b"cat\ncat\n")
    with pytest.raises(UsageError, match=r"memory://bucket/bad\.txt"):
        Vocabulary.load(f"{memory}/bad.txt")
    with pytest.raises(UsageError, match=r"memory://bucket/gone\.txt: no such object"):
        Vocabulary.load(f"{memory}/gone.txt")


def test_keys_of_webdataset(tmp_path):
    """The photo of a key is the file with the suffix of an image alone."""
    names = ("000.jpg", "000.seg.png", "000.json", "001.png", "IMG.2020.jpg", "sub/000.jpg", "sub/000.depth.png")
    write_tar(tmp_path / "a.tar", dict.fromkeys(names, b"x"))
    assert [file.id for file in find_photos(str(tmp_path / "a.tar"))] == ["000", "001", "IMG.2020", "sub/000"]
    write_tar(tmp_path / "b.tar", dict.fromkeys(("k.jpg", "k.png"), b"x"))
    assert [file.id for file in find_photos(str(tmp_path / "b.tar"))] == ["k.jpg", "k.png"]


def test_keys_must_differ(tmp_path):
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", {"000.jpg": b"x"})
    with pytest.raises(UsageError, match=r"b\.tar: holds the key '000' as .*a\.tar does; keys are ids"):
        find_photos(str(tmp_path / "*.tar"))


def test_objects_whose_names_are_no_paths(memory, photos, caplog):
    upload(photos, memory)
    store = fsspec.filesystem("memory")
    store.store["/bucket/a\\b.jpg"] = store.store["/bucket/part1/3.jpg"]
    assert len(find_photos(memory)) == 5
    assert "1 objects left out, whose names are no relative paths" in caplog.text


def test_results_in_a_store_are_no_photos(memory, photos):
    upload(photos, memory)
    for name in ("manifest.json", "config.py", "masks/0.png"):
        fsspec.filesystem("memory").pipe_file(f"bucket/run/{name}", b"{}")
    fsspec.filesystem("memory").pipe_file("bucket/out/0.png", b"{}")
    assert len(find_photos(memory, exclude=f"{memory}/out")) == 5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("memory://bucket/gone", "memory://bucket/gone: no such object or folder"),
        ("memory://bucket/*.jpg", r"no image in it"),
        ("memory://bucket/gone.tar", "no such object or folder|no .tar file there"),
        ("http://example.org/photos", "addresses of this kind are not read; use one of s3, gs"),
        ("simplecache::memory://bucket", "no such file or folder|addresses of this kind"),
        ("photos.tar.gz", "a compressed archive; decompress it first"),
        ("photos.tgz", "a compressed archive"),
        ("gone.tar", "gone.tar: no such file or folder"),
        ("gone/*.tar", "no .tar file there"),
        ("a/{9..1}.tar", r"\{9..1\} is no range"),
        (["memory://bucket/a.jpg", "photos"], "local and objects in one call|objects and local in one call"),
    ],
)
def test_what_is_refused(memory, given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words) as error:
        find_photos(given)
    assert "\n" not in str(error.value)


def test_a_recorded_root_opens_no_other_address(tmp_path):
    manifest = {"format": FORMAT, "photos": {"root": ["http://169.254.169.254/latest"]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="addresses of this kind are not read"):
        PhotoLocator.of_run(tmp_path).find("a", None)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(RequirementError, match=r"s3://bucket/a: .*pip install 'tagclip-wsss\[s3\]'"):
        find_photos("s3://bucket/a")
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(RequirementError, match="pyarrow is missing: pip install"):
        find_photos(str(tmp_path / "a.parquet"))

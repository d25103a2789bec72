"""A run whose --out is an address: what is uploaded when, what another machine resumes, what is refused."""

import json

import fsspec
import pytest

from tagclip.errors import RunError, UsageError
from wsss.cli.main import execute
from wsss.files.run_mirror import RunMirror, default_folder
from wsss.pipeline.label_folder import tag_folder

URL = "memory://bucket/runs/mine"


@pytest.fixture
def store():
    """The objects of an empty store."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def names(store):
    return sorted(name.removeprefix("/bucket/runs/mine/") for name in store.store)


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("PARTIAL", ".partial").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def running(folder, state="running"):
    write(folder, manifestDOTjson=json.dumps({"format": 1, "state": state}), configDOTpy="x = 1")


@pytest.fixture
def here(tmp_path):
    """A folder with one part done and one begun."""
    folder = tmp_path / "here"
    running(folder)
    write(folder, PARTIAL__lock="", PARTIAL__files__1="half", masks__aDOTpng="loose", logDOTtxt="log")
    write(folder, PARTIAL__parts__000000__tagsDOTjsonl="one", PARTIAL__parts__000000__done="",
          PARTIAL__parts__000000__lock="", PARTIAL__parts__000001__tagsDOTjsonl="begun")  # fmt: skip
    write(folder, **{"shards__masks-000000DOTtar": "tar", "shards__index-000000DOTjsonl": ""})
    return folder


def test_finished_parts_are_uploaded(store, here):
    RunMirror(URL, here).push()
    assert names(store) == [
        ".partial/parts/000000/done", ".partial/parts/000000/tags.jsonl", "config.py", "log.txt", "manifest.json",
        "shards/index-000000.jsonl", "shards/masks-000000.tar",
    ]  # fmt: skip


def test_what_has_not_changed_is_not_uploaded_again(store, here, monkeypatch):
    RunMirror(URL, here).push()
    put = []
    monkeypatch.setattr(type(store), "put_file", lambda self, source, target, **_: put.append(target))
    RunMirror(URL, here).push()
    assert put == []
    write(here, logDOTtxt="more")
    RunMirror(URL, here).push()
    assert put == ["/bucket/runs/mine/log.txt"]


def test_what_says_done_is_uploaded_last(store, here, monkeypatch):
    """A machine that is cut off in an upload leaves no part that seems done."""
    put, original = [], type(store).put_file

    def cut(self, source, target, **options):
        if target.endswith("index-000000.jsonl"):
            raise OSError("connection lost")
        put.append(target)
        return original(self, source, target, **options)

    monkeypatch.setattr(type(store), "put_file", cut)
    with pytest.raises(RunError, match=r"memory://bucket/runs/mine/shards/index-000000\.jsonl: connection lost"):
        RunMirror(URL, here).push()
    assert "shards/masks-000000.tar" in names(store)
    assert not any(name.endswith(("done", "manifest.json")) for name in names(store))
    monkeypatch.undo()
    RunMirror(URL, here).push()
    assert "manifest.json" in names(store)
    assert len(names(store)) == 7


def test_another_machine_resumes(store, here, tmp_path):
    RunMirror(URL, here).push()
    there = tmp_path / "there"
    write(there, PARTIAL__parts__000000__tagsDOTjsonl="begun here, too")
    running(there)
    RunMirror(URL, there).fetch()
    assert (there / ".partial/parts/000000/done").is_file()
    assert (there / ".partial/parts/000000/tags.jsonl").read_text() == "one"
    assert (there / "shards/index-000000.jsonl").is_file()
    assert not (there / "shards/masks-000000.tar").exists()  # nothing reads it yet
    RunMirror(URL, there).push()
    assert store.cat_file("bucket/runs/mine/shards/masks-000000.tar") == b"tar"


def test_a_finished_run_is_fetched_whole_and_cleans_up(store, here, tmp_path):
    RunMirror(URL, here).push()
    there = tmp_path / "there"
    RunMirror(URL, there).fetch()
    (here / ".partial/parts/000000/done").unlink()
    for path in sorted((here / ".partial").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    write(here, tagsDOTjsonl="all")
    running(here, "complete")
    RunMirror(URL, here).push()
    assert not any(name.startswith(".partial") for name in names(store))
    RunMirror(URL, there).fetch()
    assert json.loads((there / "manifest.json").read_text())["state"] == "complete"
    assert (there / "shards/masks-000000.tar").read_text() == "tar"
    assert not (there / ".partial").exists()
    assert (there / "tags.jsonl").read_text() == "all"


def test_archives_of_another_machine_stay(store, here, tmp_path):
    """Who merges has the indexes of all parts, and the archives of its own parts alone."""
    RunMirror(URL, here).push()
    there = tmp_path / "there"
    RunMirror(URL, there).fetch()
    running(there, "complete")
    store.pipe_file("bucket/runs/mine/shards/masks-000007.tar", b"no index names it")
    RunMirror(URL, there).push()
    assert store.cat_file("bucket/runs/mine/shards/masks-000000.tar") == b"tar"
    assert not store.exists("bucket/runs/mine/shards/masks-000007.tar")


def test_what_is_refused(store, tmp_path, photos):
    store.pipe_file("bucket/runs/mine/a.jpg", b"x")
    with pytest.raises(UsageError, match=r"holds 1 objects \(first 'a\.jpg'\), but no manifest\.json of a run"):
        RunMirror(URL, tmp_path).fetch()
    with pytest.raises(UsageError, match="addresses of this kind are not read"):
        RunMirror("ftp://host/run", tmp_path)
    for more, words in (
        (("--overwrite",), "--overwrite: --out memory://bucket/runs/mine is in a store"),
        (("--layout", "files"), "--layout files: --out"),
    ):
        with pytest.raises(UsageError, match=words):
            call(photos, tmp_path, *more)
    with pytest.raises(UsageError, match="--staging: --out is a folder already"):
        call(photos, tmp_path, out="runs/mine")
    with pytest.raises(UsageError, match="`tagclip export` writes to a folder, not to an address"):
        execute(["export", "--run", str(tmp_path), "--format", "voc", "--out", URL])
    with pytest.raises(UsageError, match="results go to a folder; an address is taken as --out"):
        tag_folder(photos, ["cat"], URL, model="demo")


def test_names_of_objects_lead_nowhere_else(store, here, tmp_path):
    RunMirror(URL, here).push()
    store.store["/bucket/runs/mine/..\\..\\x"] = store.store["/bucket/runs/mine/log.txt"]
    with pytest.raises(UsageError, match="which is no path"):
        RunMirror(URL, tmp_path / "there").fetch()


def test_the_folder_is_named_after_the_address(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, other = default_folder("s3://a/runs/mine"), default_folder("s3://b/runs/mine")
    assert one != other
    assert one.parent == tmp_path / "tagclip" / "staging"
    assert one.name.startswith("mine-")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from tests.wsss.runs import draw_images

    folder = tmp_path_factory.mktemp("photos")
    draw_images(folder)
    return folder


def call(photos, staging, *more, out=URL):
    return execute([
        "tag", "--images", str(photos), "--classes", "voc", "--model", "demo", "--threads", "1", "--quiet", "--staging",
        str(staging), "--cache-dir", str(photos.parent / "texts"), "--out", out, *more,
    ])  # fmt: skip


def test_a_run_in_a_store(store, photos, tmp_path, monkeypatch):
    from wsss.pipeline import work_parts

    monkeypatch.setattr(work_parts, "IMAGES_PER_PART", 2)
    # Two machines with a shard each, one after the other; the second merges what both have done.
    assert call(photos, tmp_path / "one", "--shard", "1/2") == 0
    assert any(name.startswith(".partial/parts/") and name.endswith("done") for name in names(store))
    assert json.loads(store.cat_file("bucket/runs/mine/manifest.json"))["state"] == "running"
    assert call(photos, tmp_path / "two", "--shard", "2/2") == 0
    assert json.loads(store.cat_file("bucket/runs/mine/manifest.json"))["state"] == "complete"
    assert not any(name.startswith(".partial") for name in names(store))
    assert {"tags.jsonl", "tags.parquet", "config.py"} <= set(names(store))
    assert execute([
        "tag", "--images", str(photos), "--classes", "voc", "--model", "demo", "--threads", "1", "--quiet", "--out",
        str(tmp_path / "local"), "--cache-dir", str(photos.parent / "texts"),
    ]) == 0  # fmt: skip
    for name in ("tags.jsonl", "manifest.json"):
        assert store.cat_file(f"bucket/runs/mine/{name}") == (tmp_path / "local" / name).read_bytes()
    # The first machine learns of it, and has nothing left to do.
    before = dict(store.store)
    assert call(photos, tmp_path / "one") == 0
    assert names(store) == sorted(name.removeprefix("/bucket/runs/mine/") for name in before)
    with pytest.raises(RunError, match=f"--out {URL}: belongs to a run"):
        call(photos, tmp_path / "one", "--preset", "reference")

"""Results in tar shards: packed once, dropped by the index, read by everything that reads folders."""

import io
import shutil
import tarfile

import numpy as np
import pytest

from tagclip.errors import ImageError, RunError, UsageError
from wsss.files import result_shards
from wsss.files.map_files import StoredMaps, read_maps
from wsss.files.mask_files import encode_mask, read_mask
from wsss.files.result_shards import ResultShards, check_layout, results_by_id, results_there

PALETTE = np.zeros((4, 3), np.uint8)
IDS = ("a", "sub/b", "sub/ö c")


def put(root, kind, name, data):
    path = root / kind / f"{name}{result_shards.SUFFIXES[kind]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def mask(value):
    return encode_mask(np.full((4, 5), value, np.uint8), PALETTE)


def maps():
    buffer = io.BytesIO()
    StoredMaps(np.ones((1, 2, 2), np.float16), np.array([3]), (4, 5)).write(buffer)
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path):
    root = tmp_path / "run"
    for value, name in enumerate(IDS):
        put(root, "masks", name, mask(value))
        put(root, "cams", name, maps())
    (tmp_path / "scratch").mkdir()
    return root


def loose(root):
    return sorted(path.name for kind in result_shards.SUFFIXES for path in (root / kind).rglob("*") if path.is_file())


def test_what_is_packed_is_read_back(run, tmp_path):
    shards = ResultShards(run)
    shards.pack(IDS, tmp_path / "scratch", 12)
    assert loose(run) == []
    assert sorted(path.name for path in (run / "shards").iterdir()) == [
        "cams-000012.tar", "index-000012.jsonl", "masks-000012.tar",
    ]  # fmt: skip
    for found in (shards, ResultShards(run), ResultShards(run, 12)):
        assert found.ids("masks") == found.ids("cams") == set(IDS)
        assert found.ids("confidence") == set()
        for value, name in enumerate(IDS):
            assert read_mask(found.find("masks", name)).max() == value
            assert read_maps(found.find("cams", name)).classes.tolist() == [3]
        assert found.find("masks", "other") is None
    assert ResultShards(run, 11).ids("masks") == set()
    with tarfile.open(run / "shards" / "masks-000012.tar") as archive:  # a WebDataset shard
        assert archive.getnames() == ["a.png", "sub/b.png", "sub/ö c.png"]
        assert archive.extractfile("sub/b.png").read() == mask(1)


def test_shards_have_the_same_bytes(run, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(run, twin)
    for root in (run, twin):
        ResultShards(root).pack(IDS, tmp_path / "scratch", 0)
    for name in ("masks-000000.tar", "cams-000000.tar", "index-000000.jsonl"):
        assert (run / "shards" / name).read_bytes() == (twin / "shards" / name).read_bytes()


def test_a_kill_before_the_index_loses_nothing(run, tmp_path, monkeypatch):
    shards = ResultShards(run)
    monkeypatch.setattr(ResultShards, "_write_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        shards.pack(IDS, tmp_path / "scratch", 0)
    monkeypatch.undo()
    assert len(loose(run)) == 6
    assert ResultShards(run).ids("masks") == set()
    ResultShards(run).pack(IDS, tmp_path / "scratch", 0)
    assert loose(run) == []
    assert read_mask(ResultShards(run).find("masks", "sub/b")).max() == 1


def test_a_kill_after_the_index_leaves_twins_that_go(run, tmp_path):
    ResultShards(run).pack(IDS, tmp_path / "scratch", 0)
    put(run, "masks", "a", mask(0))  # as if it had not been removed
    before = (run / "shards" / "masks-000000.tar").read_bytes()
    ResultShards(run).pack(IDS, tmp_path / "scratch", 0)
    assert loose(run) == []
    assert ResultShards(run).numbers() == [0]
    assert (run / "shards" / "masks-000000.tar").read_bytes() == before


def test_what_is_made_anew_goes_into_the_next_shard(run, tmp_path):
    ResultShards(run).pack(IDS, tmp_path / "scratch", 0)
    put(run, "masks", "a", mask(3))
    shards = ResultShards(run)
    shards.pack(IDS, tmp_path / "scratch", 0)
    for found in (shards, ResultShards(run)):
        assert found.numbers() == [0, 1]
        assert read_mask(found.find("masks", "a")).max() == 3
        assert found.find("cams", "a").archive.endswith("cams-000000.tar")


def test_dropped_files_are_gone(run, tmp_path):
    shards = ResultShards(run)
    shards.pack(IDS, tmp_path / "scratch", 0)
    shards.forget([("masks", "a"), ("cams", "a"), ("confidence", "a"), ("masks", "sub/b"), ("masks", "never")])
    for found in (shards, ResultShards(run)):
        assert found.ids("masks") == {"sub/ö c"}
        assert found.ids("cams") == {"sub/b", "sub/ö c"}
        assert read_mask(found.find("masks", "sub/ö c")).max() == 2
    shards.forget([(kind, name) for kind in ("masks", "cams") for name in IDS])
    assert list((run / "shards").iterdir()) == []


def test_folders_and_shards_are_one(run, tmp_path):
    ResultShards(run).pack(IDS[:2], tmp_path / "scratch", 0)
    found = results_by_id(run / "masks", ".png")
    assert list(found) == list(IDS)
    put(run, "masks", "a", mask(3))  # newer than what the shard has
    assert read_mask(results_by_id(run / "masks", ".png")["a"]).max() == 3
    shutil.rmtree(run / "masks")
    assert results_there(run / "masks")
    assert list(results_by_id(run / "masks", ".png")) == list(IDS[:2])
    assert not results_there(tmp_path / "other")


@pytest.mark.parametrize(
    "line", ['{"id": "a", "masks": [0]}', '{"masks": [0, 1]}', '{"id": "a", "masks": [-1, 1]}', "x"]
)
def test_damaged_indexes(run, tmp_path, line):
    ResultShards(run).pack(IDS, tmp_path / "scratch", 0)
    (run / "shards" / "index-000000.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match=r"index-000000\.jsonl line 1: not"):
        ResultShards(run).ids("masks")


def test_an_index_that_points_beyond_its_archive(run, tmp_path):
    ResultShards(run).pack(IDS, tmp_path / "scratch", 0)
    (run / "shards" / "index-000000.jsonl").write_text('{"id": "a", "masks": [1000000, 40]}\n')
    with pytest.raises(ImageError, match=r"masks-000000\.tar: a\.png: .*changed"):
        read_mask(ResultShards(run).find("masks", "a"))
    (run / "shards" / "masks-000000.tar").unlink()
    with pytest.raises(ImageError, match="No such file"):
        read_mask(ResultShards(run).find("masks", "a"))


def test_layouts():
    check_layout("files")
    with pytest.raises(UsageError, match="layout 'zip' is not one of files, tar"):
        check_layout("zip")

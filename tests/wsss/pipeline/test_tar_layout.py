"""`--layout tar`: the files of a plain run, in shards; what changes a run, and what reads it, sees no difference."""

import json
import shutil

import numpy as np
import pytest

from tagclip.errors import UsageError
from tests.wsss.runs import contents, draw_images
from wsss.cli.main import execute
from wsss.evaluation.pairs import find_pairs
from wsss.export import export_run
from wsss.files import result_shards, run_folder
from wsss.files.corrections import Corrections, ImageCorrection, write_corrections
from wsss.files.result_shards import ResultShards, results_by_id
from wsss.files.run_files import read_manifest
from wsss.files.run_folder import RunFolder
from wsss.files.run_reader import RunReader
from wsss.files.sources import open_source
from wsss.pipeline import work_parts
from wsss.pipeline.remask import Remasking
from wsss.review.page import ReviewPage

KINDS = ("masks", "cams", "confidence")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(work_parts, "IMAGES_PER_PART", 2)
    monkeypatch.setattr(run_folder, "IMAGES_PER_SHARD", 2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    draw_images(folder)
    (folder / "broken.png").write_bytes(b"no photo")
    return folder


def call(photos, out, *more):
    return execute([
        "run", "--images", str(photos), "--classes", "voc", "--model", "demo", "--config", "demo/masks", "--out",
        str(out), "--threads", "1", "--refine", "pamr", "--batch-size", "2", "--save-confidence", "--quiet",
        "--cache-dir", str(photos.parent / "texts"), *more,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def plain(photos, tmp_path_factory):
    """A run of files."""
    out = tmp_path_factory.mktemp("plain") / "run"
    assert call(photos, out) == 0
    return out


@pytest.fixture(scope="module")
def packed(photos, tmp_path_factory):
    """The same run in shards."""
    out = tmp_path_factory.mktemp("packed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work_parts, "IMAGES_PER_PART", 2)
        assert call(photos, out, "--layout", "tar") == 0
    return out


def results(out):
    """The bytes of every mask, class map and confidence, wherever it is."""
    return {
        (kind, name): place.read_bytes()
        for kind in KINDS
        for name, place in results_by_id(out / kind, result_shards.SUFFIXES[kind]).items()
    }


def same(one, other):
    """Whether two runs hold the same."""
    assert results(one) == results(other)
    names = ("tags.jsonl", "failures.jsonl", "manifest.json", "rejected.jsonl", "left.jsonl")
    assert all(
        (one / name).is_file() == (other / name).is_file()
        and (not (one / name).is_file() or (one / name).read_bytes() == (other / name).read_bytes())
        for name in names
    )


def test_shards_hold_the_bytes_of_files(plain, packed):
    same(packed, plain)
    assert len(results(packed)) == 18
    names = sorted(path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file())
    assert [name for name in names if name.startswith(KINDS)] == []
    shards = [name for name in names if name.startswith("shards/")]
    assert len(shards) == 4 * len(ResultShards(packed).numbers())
    assert "tags.parquet" in names
    assert not (packed / ".partial").exists()


def test_shards_of_the_command_line_and_one_process_agree(photos, packed, tmp_path):
    out = tmp_path / "run"
    for number in (2, 1):
        assert call(photos, out, "--layout", "tar", "--shard", f"{number}/2") == 0
    before = {name: digest for name, digest in contents(packed).items() if name != "config.py"}
    assert {name: digest for name, digest in contents(out).items() if name != "config.py"} == before


def test_a_kill_in_a_part_or_after_it(photos, packed, tmp_path, monkeypatch):
    out, pack, calls = tmp_path / "run", ResultShards.pack, []

    def stop_after(moment):
        def stopped(self, ids, scratch, number=None):
            calls.append(number)
            if len(calls) == 2:
                if moment == "after":
                    pack(self, ids, scratch, number)
                raise KeyboardInterrupt
            pack(self, ids, scratch, number)

        return stopped

    for moment in ("before", "after"):
        shutil.rmtree(out, ignore_errors=True)
        calls.clear()
        monkeypatch.setattr(ResultShards, "pack", stop_after(moment))
        with pytest.raises(KeyboardInterrupt):
            call(photos, out, "--layout", "tar")
        monkeypatch.setattr(ResultShards, "pack", pack)
        assert read_manifest(out)["state"] == "running"
        assert call(photos, out, "--layout", "tar") == 0
        same(out, packed)
        assert ResultShards(out).numbers() == ResultShards(packed).numbers()
        for path in (packed / "shards").iterdir():
            assert (out / "shards" / path.name).read_bytes() == path.read_bytes()


def test_once_more_changes_nothing(photos, packed):
    before = contents(packed)
    assert call(photos, packed, "--layout", "tar") == 0
    assert contents(packed) == before


def test_a_finished_run_of_files_becomes_shards(photos, plain, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    assert call(photos, out, "--layout", "tar") == 0
    same(out, plain)
    assert not (out / "masks").exists()
    assert ResultShards(out).numbers() == [0, 1, 2]


def test_changes_reach_into_shards(photos, plain, packed, tmp_path):
    """Another threshold, a rejected image, an image that comes back: as in folders."""
    runs = tmp_path / "files", tmp_path / "tar"
    ids = sorted(record.id for record in RunReader(plain).records())
    for source, out in zip((plain, packed), runs, strict=True):
        shutil.copytree(source, out)
        layout = "tar" if out.name == "tar" else "files"
        assert call(photos, out, "--layout", layout, "--tag-threshold", "0.8") == 0
    same(*runs)
    images = {ids[0]: ImageCorrection(state="rejected"), ids[1]: ImageCorrection(add=("cat",))}
    said = Corrections(run_id=RunReader(plain).id, images=images)
    write_corrections(said, tmp_path / "said.json")
    back = Corrections(run_id=said.run_id, images={ids[0]: ImageCorrection(state="checked")})
    write_corrections(back, tmp_path / "back.json")
    for file, kept in (("said.json", 5), ("back.json", 6)):
        for out in runs:
            assert execute(["mask", "--run", str(out), "--corrections", str(tmp_path / file), "--quiet"]) == 0
        same(*runs)
        assert len([name for kind, name in results(runs[1]) if kind == "masks"]) == kept
        aside = [contents(out / "aside") for out in runs]
        assert aside[0] == aside[1]
        assert bool(aside[0]) == (kept == 5)
        assert not (runs[1] / "masks").exists()  # packed again


def test_tags_are_a_table_too(packed, tmp_path):
    import pyarrow.parquet as pq

    out = tmp_path / "run"
    shutil.copytree(packed, out)
    (out / "tags.jsonl").unlink()
    ours, theirs = list(RunReader(packed).records()), list(RunReader(out).records())
    assert len(ours) == 6
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(one.scores, other.scores)
        assert (one.id, one.indices, one.path, one.size, one.file_size) == (
            other.id, other.indices, other.path, other.size, other.file_size,
        )  # fmt: skip
    table = pq.read_table(out / "tags.parquet")
    assert table.column_names[:3] == ["id", "path", "height"]
    assert table.column("tags").to_pylist() == [json.loads(line)["tags"] for line in (packed / "tags.jsonl").open()]


def test_everything_downstream_reads_shards(plain, packed, tmp_path):
    for record in RunReader(packed).records():
        assert np.array_equal(RunReader(packed).mask(record.id), RunReader(plain).mask(record.id))
        assert np.array_equal(RunReader(packed).confidence(record.id), RunReader(plain).confidence(record.id))
        assert RunReader(packed).maps(record.id).keys() == RunReader(plain).maps(record.id).keys()
    sources = [open_source(root) for root in (plain, packed)]
    assert [one.id for one in sources[0].samples] == [one.id for one in sources[1].samples]
    assert not sources[1].missing
    pairs = find_pairs(packed / "masks", plain / "masks")
    assert len(pairs) == 6
    assert len(find_pairs(packed / "cams", plain / "masks", ".npz")) == 6
    for name, root in (("plain", plain), ("packed", packed)):
        assert export_run(root, "coco", out=tmp_path / name, min_confidence=0.1).images == 6
        page = ReviewPage.plan(root)
        page.make(1)
        again = Remasking.plan(root, tmp_path / f"{name}-masks", {"pamr": {"iterations": 1}})
        again.execute(1)
    assert contents(tmp_path / "plain", ()).keys() == contents(tmp_path / "packed", ()).keys()
    assert (tmp_path / "plain" / "annotations").is_dir()
    for top in ("{}/annotations", "{}-masks"):
        mine, theirs = (contents(tmp_path / top.format(name), ("masks.json",)) for name in ("plain", "packed"))
        assert mine == theirs
    thumbs = [contents(root / "review" / "thumbs", ("index.json",)) for root in (plain, packed)]
    assert thumbs[0] == thumbs[1]
    assert thumbs[0]


def test_commands_read_shards(plain, packed, tmp_path, capsys):
    scores = []
    for root in (plain, packed):
        file = tmp_path / f"{root.parent.name}.json"
        assert execute(["evaluate", "masks", "--run", str(root), "--ground-truth", str(plain / "masks"), "--json",
                        str(file), "--quiet"]) == 0  # fmt: skip
        scores.append(json.loads(file.read_text()))
        strips = tmp_path / f"{root.parent.name}-strips"
        assert execute(["show", "--run", str(root), "--out", str(strips), "--quiet"]) == 0
    assert scores[0] == scores[1]


def test_training_unpacks_shards(packed):
    pytest.importorskip("mmseg")
    from wsss.mmseg_plugin.pseudo_mask_dataset import PseudoMaskDataset

    dataset = PseudoMaskDataset(packed, pipeline=[])
    first = dataset.get_data_info(0)
    copy = packed / "unpacked" / "masks" / f"{first['sample_id']}.png"
    assert first["seg_map_path"] == str(copy)
    assert results(packed)["masks", first["sample_id"]] == copy.read_bytes()
    shutil.rmtree(packed / "unpacked")


def test_tags_alone(photos, tmp_path):
    out = tmp_path / "tags"
    assert execute(["tag", "--images", str(photos), "--classes", "voc", "--model", "demo", "--out", str(out),
                    "--layout", "tar", "--quiet"]) == 0  # fmt: skip
    assert (out / "tags.parquet").is_file()
    assert not (out / "shards").exists()


def test_overwrite_leaves_nothing_of_the_shards(photos, packed, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(packed, out)
    (out / "shards" / "stray.txt").write_text("x")
    assert call(photos, out, "--layout", "tar", "--overwrite") == 0
    same(out, packed)
    assert not (out / "shards" / "stray.txt").exists()


def test_folders_without_a_manifest_are_refused(tmp_path):
    (tmp_path / "shards").mkdir()
    with pytest.raises(UsageError, match=r"holds shards, but no manifest\.json"):
        RunFolder.open(tmp_path, {}, {})

"""Parts and shards: cut by the list alone, done on any number of machines, merged into the bytes of one process."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.errors import RunError, UsageError
from tests.wsss.runs import contents
from wsss.cli.main import execute
from wsss.files.locks import FolderBusyError, take_lock
from wsss.files.run_folder import PARTIAL, PARTS
from wsss.pipeline import work_parts
from wsss.pipeline.planning import Plan, PlannedImage
from wsss.pipeline.work_parts import Shard, cut_parts

VOLATILE = ("log.txt", "times.json", "plan.npz")


def plan_of(*sizes: int) -> Plan:
    """A plan of batches of these sizes; only ids matter."""
    names = iter(range(1000))
    batches = []
    for size in sizes:
        batch = []
        for _ in range(size):
            file = type("File", (), {"id": f"{next(names):03}"})()
            batch.append(PlannedImage(file, None, None))
        batches.append(batch)
    return Plan([image.id for batch in batches for image in batch], batches)


def test_parts_are_whole_batches():
    found = cut_parts(plan_of(3, 3, 3, 1, 8, 2), 5)
    assert [[len(batch) for batch in part.batches] for part in found] == [[3, 3], [3, 1, 8], [2]]
    assert [name for part in found for name in part.order] == [f"{number:03}" for number in range(20)]
    assert cut_parts(Plan([], []), 5) == []
    assert len(cut_parts(plan_of(*[4] * 200), 256)) == 4  # 64 batches reach 256


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_all_parts(count):
    owned = [set(Shard(number, count).own(5)) for number in range(1, count + 1)]
    assert set().union(*owned) == set(range(5))
    assert sum(map(len, owned)) == 5


@pytest.mark.parametrize(("number", "count"), [(0, 4), (5, 4)])
def test_shards_that_are_none(number, count):
    with pytest.raises(UsageError, match=f"--shard {number}/{count}: K/N with K from 1 to N"):
        Shard(number, count)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Seven small scenes and a file that is no photo."""
    folder = tmp_path_factory.mktemp("photos")
    renderer = SceneRenderer(SceneConfig(side=(96, 97), object_side=(40, 60), objects=(1, 2)), 3)
    for number in range(7):
        Image.fromarray(renderer(number).image[:96, :96]).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no photo")
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(work_parts, "IMAGES_PER_PART", 2)


def call(name: str, photos: Path, out: Path, *more: str) -> int:
    config = ["--config", "demo/masks"] if name == "run" else []
    return execute([name, "--images", str(photos), "--classes", "voc", "--model", "demo", "--out", str(out), *config,
                    "--batch-size", "2", "--threads", "1", "--quiet", *more])  # fmt: skip


def made(out: Path) -> dict:
    """Digests of what must be the same."""
    return {name: digest for name, digest in contents(out).items() if name not in (*VOLATILE, "config.py")}


@pytest.fixture(scope="module", params=["tag", "run"])
def whole(request, photos, tmp_path_factory):
    """(subcommand, files) of an undisturbed run in one process."""
    out = tmp_path_factory.mktemp("whole") / request.param
    assert call(request.param, photos, out) == 0
    return request.param, made(out)


def test_shards_end_with_the_bytes_of_one_process(whole, photos, tmp_path, capsys):
    name, expected = whole
    out = tmp_path / "out"
    assert call(name, photos, out, "--shard", "2/3") == 0
    assert "shard 2/3: 1 of 4 parts, 2 images" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"3 of 4 parts are not done: 0, 2, 3; run their shards again"):
        execute(["merge", "--run", str(out), "--quiet"])
    assert call(name, photos, out, "--shard", "1/3") == 0
    assert json.loads((out / "manifest.json").read_text())["state"] == "running"
    assert call(name, photos, out, "--shard", "3/3") == 0
    assert "all 4 parts are done and merged" in capsys.readouterr().out
    assert made(out) == expected
    assert not (out / PARTIAL).exists()
    # Once more: nothing is left, and nothing changes.
    assert call(name, photos, out, "--shard", "1/3") == 0
    assert execute(["merge", "--run", str(out), "--quiet"]) == 0
    assert made(out) == expected


def test_another_number_of_shards_takes_the_work_up(whole, photos, tmp_path):
    name, expected = whole
    out = tmp_path / "out"
    assert call(name, photos, out, "--shard", "1/4") == 0
    assert call(name, photos, out, "--shard", "2/2") == 0
    assert call(name, photos, out) == 0  # one process does the rest alone
    assert made(out) == expected


def test_a_part_that_was_cut_is_taken_up(whole, photos, tmp_path):
    name, expected = whole
    out = tmp_path / "out"
    assert call(name, photos, out, "--shard", "1/2") == 0
    part = out / PARTIAL / PARTS / "000000"
    (part / "done").unlink()
    lines = (part / "tags.jsonl").read_bytes().splitlines(keepends=True)
    (part / "tags.jsonl").write_bytes(lines[0] + lines[1][:9])  # a kill in the middle of a record
    for folder in ("masks", "cams"):
        shutil.rmtree(out / folder, ignore_errors=True)
    (out / PARTIAL / PARTS / "000002" / "done").unlink()
    assert call(name, photos, out, "--shard", "1/2") == 0
    assert call(name, photos, out, "--shard", "2/2") == 0
    assert made(out) == expected


def test_one_process_and_shards_do_not_meet(photos, tmp_path):
    out = tmp_path / "out"
    assert call("tag", photos, out, "--shard", "1/4") == 0
    lock = take_lock(out / PARTIAL / PARTS / "000000" / "lock", "held")
    with pytest.raises(FolderBusyError, match="part 000000: another process is working"):
        call("tag", photos, out)
    lock.release()
    lock = take_lock(out / PARTIAL / "lock", "held")
    with pytest.raises(FolderBusyError, match="another process is working"):
        call("tag", photos, out, "--shard", "2/4")
    lock.release()
    assert call("tag", photos, out, "--shard", "2/4") == 0


def test_what_shards_refuse(photos, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="--overwrite: every shard would start anew"):
        call("tag", photos, out, "--shard", "1/2", "--overwrite")
    with pytest.raises(UsageError, match="--shard 3/2"):
        call("tag", photos, out, "--shard", "3/2")
    with pytest.raises(UsageError, match="--train: a shard is a share of the run"):
        call("run", photos, out, "--shard", "1/2", "--train", "demo/segmentation")
    assert not out.exists()
    with pytest.raises(UsageError, match="no run in this folder"):
        execute(["merge", "--run", str(tmp_path / "gone")])
    assert call("tag", photos, out, "--shard", "1/2") == 0
    with pytest.raises(RunError, match=r"tagging\.rule\.threshold .* without --shard and --engine brings"):
        call("tag", photos, out, "--shard", "2/2", "--tag-threshold", "0.9")

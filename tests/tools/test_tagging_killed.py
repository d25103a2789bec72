"""A tagging run that is killed again and again ends with the bytes of one that was not."""

import multiprocessing
import random
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.bad_images import scene, write_bad
from tests.tools.tagging_runs import tag_folder

FILES = ("tags.jsonl", "tags.txt", "failures.jsonl", "manifest.json")
SIZES = ((40, 56), (56, 40), (40, 56), (48, 48))


@pytest.fixture(scope="module")
def processes():
    """Processes forked from a clean one that has PyTorch loaded but no threads, so that each starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tools.tagging_runs"])
    return context


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, golden_model_path):
    """Image folder, text cache and the run folder of a run that nobody killed."""
    root = tmp_path_factory.mktemp("killed")
    images = root / "images"
    bad = write_bad(images / "bad")
    for name in ("noise", "program", "bomb"):
        bad[name].unlink()
    for number in range(14):
        path = images / f"part{number % 3}" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(scene(*SIZES[number % 4], seed=number)).save(path)
    tag_folder(golden_model_path, images, root / "whole", root / "cache")
    return root


def start(processes, root: Path, out: Path, weights: Path):
    process = processes.Process(target=tag_folder, args=(weights, root / "images", out, root / "cache", 0.05))
    process.start()
    return process


def done(out: Path) -> bool:
    manifest = out / "manifest.json"
    return manifest.exists() and '"complete"' in manifest.read_text()


@pytest.mark.parametrize("seed", range(2))
def test_killed_runs_end_with_the_same_bytes(processes, undisturbed, golden_model_path, tmp_path, seed):
    """Killed when the journal has grown to a random size: right before, in the middle of, or after a batch."""
    out, moments = tmp_path / "run", random.Random(seed)
    journal = out / ".partial" / "tags.jsonl"
    total = (undisturbed / "whole" / "tags.jsonl").stat().st_size
    kills = 0
    for share in sorted(moments.random() for _ in range(3)):
        process = start(processes, undisturbed, out, golden_model_path)
        while process.is_alive() and not (journal.exists() and journal.stat().st_size >= share * total):
            time.sleep(0.002)
        time.sleep(moments.random() * 0.05)
        process.kill()
        process.join()
        kills += not done(out)
        if journal.exists():
            with journal.open("ab") as file:  # a line that the kill cut short
                file.write(b'{"id": "part0/00", "path": "x')
    assert kills >= 2
    process = start(processes, undisturbed, out, golden_model_path)
    process.join()
    assert process.exitcode == 0
    for name in FILES:
        assert (out / name).read_bytes() == (undisturbed / "whole" / name).read_bytes(), name
    assert not (out / ".partial").exists()


def test_undisturbed_run_has_every_image_once_in_order(undisturbed):
    names = [line.split()[0] for line in (undisturbed / "whole" / "tags.txt").read_text().splitlines()]
    assert names == sorted(f"part{number % 3}/{number:02}" for number in range(14))
    failures = (undisturbed / "whole" / "failures.jsonl").read_text()
    assert failures.count("\n") == 4


def test_a_mended_image_is_done_on_the_next_run(undisturbed, golden_model_path, tmp_path):
    images, out = tmp_path / "images", tmp_path / "run"
    shutil.copytree(undisturbed / "images" / "part0", images)
    whole = (images / "03.png").read_bytes()
    (images / "03.png").write_bytes(whole[: len(whole) // 2])
    tag_folder(golden_model_path, images, out, undisturbed / "cache")
    first = (out / "tags.txt").read_text().splitlines()
    assert (out / "failures.jsonl").read_text().count("\n") == 1
    (images / "03.png").write_bytes(whole)
    tag_folder(golden_model_path, images, out, undisturbed / "cache")
    second = (out / "tags.txt").read_text().splitlines()
    assert len(second) == len(first) + 1
    assert set(second) > set(first)
    assert not (out / "failures.jsonl").read_bytes()

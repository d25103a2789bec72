"""Mask workers: bounded, without PyTorch, clear when the disk is full or a worker is killed."""

import multiprocessing
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tagclip.errors import ImageError, RunError
from tests.wsss.pipeline.deadly import DEADLY, ONCE, deadly_work, die_at_once
from tests.wsss.pipeline.test_masks import full_disk
from tests.wsss.runs import VOCABULARY
from wsss.config import CrfConfig, MaskConfig
from wsss.files.map_files import StoredMaps, read_maps
from wsss.files.mask_files import read_mask
from wsss.pipeline import mask_workers
from wsss.pipeline.mask_workers import MaskJob, MaskStage, MaskWorkers, make_mask

ROOT = Path(__file__).parents[3]


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "scratch").mkdir()
    return MaskStage(MaskConfig(confidence=None), True, VOCABULARY.label_palette, tmp_path / "scratch")


def make_job(folder: Path, name: str, cams: np.ndarray, size=(20, 30)) -> MaskJob:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    with (folder / f"{name}.npz").open("wb") as file:
        StoredMaps(cams.astype(np.float16), np.arange(len(cams)), size).write(file)
    return MaskJob(name, folder / f"{name}.png", folder / f"{name}.npz", folder / "out" / f"{name}.png")


def test_a_worker_needs_no_torch():
    code = "import sys, wsss.masks.crf, wsss.pipeline.mask_workers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("engine", "loaded"),
    [pytest.param("pydensecrf", False, marks=pytest.mark.pydensecrf), ("torch", True)],
)
def test_a_worker_loads_torch_for_tensors_only_and_with_one_thread(engine, loaded):
    code = f"""
import sys, numpy as np
from wsss.pipeline.mask_workers import _start_worker
from wsss.masks.crf import crf_probabilities
from wsss.config import CrfConfig
_start_worker({loaded})
crf_probabilities(np.zeros((9, 9, 3), np.uint8), np.full((2, 9, 9), 0.5, np.float32), CrfConfig(engine={engine!r}))
assert ("torch" in sys.modules) == {loaded}
assert not {loaded} or sys.modules["torch"].get_num_threads() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_crf_on_tensors_in_a_process_and_here(stage, tmp_path):
    stage = replace(stage, config=MaskConfig(confidence=None, crf=CrfConfig(engine="torch")))
    assert (stage.crf_on_tensors, stage.in_process) == (True, False)
    cams = np.random.default_rng(0).random((2, 2, 3))
    jobs = [make_job(tmp_path, name, cams) for name in ("process", "here")]
    with pool(stage, 1) as workers:
        assert finish(workers, jobs[:1])["process"].problem is None
    assert make_mask(stage, jobs[1]).problem is None
    first, second = (read_mask(job.mask) for job in jobs)
    assert np.array_equal(first, second)
    assert len(np.unique(first)) > 1


@pytest.mark.parametrize(
    ("refiner", "engine", "device", "expected"),
    [
        ("crf", "auto", "cuda", True), ("crf", "torch", "cuda:1", True), ("crf", "pydensecrf", "cuda", False),
        ("crf", "torch", "cpu", False), ("crf", "auto", "cpu", False), ("pamr", "auto", "cpu", True),
        ("pamr", "auto", "cuda", True), ("none", "auto", "cuda", False),
    ],
)  # fmt: skip
def test_refiners_on_the_models_device_work_in_its_process(stage, refiner, engine, device, expected):
    config = MaskConfig(refiner=refiner, crf=CrfConfig(engine=engine))
    assert replace(stage, config=config, device=device).in_process == expected


def test_mask_of_empty_maps_is_all_background(stage, tmp_path):
    report = make_mask(stage, make_job(tmp_path, "zero", np.zeros((2, 2, 3))))
    assert report.problem is None
    assert report.counts == {0: 600}
    assert not read_mask(tmp_path / "out" / "zero.png").any()


@pytest.mark.parametrize("content", [b"", b"PK", "cut"])
def test_a_damaged_cam_file_is_a_problem_of_its_image_only(stage, tmp_path, content):
    job = make_job(tmp_path, "one", np.ones((1, 2, 3)))
    data = job.maps.read_bytes()
    job.maps.write_bytes(data[:-50] if content == "cut" else content)
    with pytest.raises(ImageError, match=r"one\.npz: damaged class maps .*delete the file and run again"):
        read_maps(job.maps)
    report = make_mask(stage, job)
    assert "damaged class maps" in report.problem
    assert not job.mask.exists()


def test_pickled_cams_are_not_loaded(tmp_path):
    np.savez(tmp_path / "evil.npz", cams=np.array([{"a": 1}], object), classes=np.zeros(1), size=np.zeros(2))
    with pytest.raises(ImageError, match="damaged class maps"):
        read_maps(tmp_path / "evil.npz")


def test_cams_of_another_image_are_refused(stage, tmp_path):
    job = make_job(tmp_path, "one", np.ones((1, 2, 3)))
    Image.new("RGB", (40, 40)).save(job.image)
    assert "made of another size" in make_mask(stage, job).problem


def test_stored_cams_have_the_same_bytes_every_time(tmp_path):
    first = make_job(tmp_path, "first", np.full((1, 2, 3), 0.5))
    second = make_job(tmp_path, "second", np.full((1, 2, 3), 0.5))
    assert first.maps.read_bytes() == second.maps.read_bytes()


def test_full_disk_leaves_nothing_behind(stage, tmp_path):
    job = make_job(tmp_path, "one", np.ones((1, 2, 3)))
    with full_disk(100), pytest.raises(RunError, match="no space left on the disk"):
        make_mask(stage, job)
    assert not job.mask.exists()
    assert not list(stage.scratch.iterdir())


def test_the_queue_is_bounded_and_every_job_comes_back(stage, tmp_path):
    workers = MaskWorkers(stage, 1, 3, in_process=True)
    done = []
    for number in range(10):
        job = make_job(tmp_path, str(number), np.zeros((1, 2, 3)))
        done += [finished.id for finished, _ in workers.submit(job)]
        assert workers.room() >= 0
        assert number + 1 - len(done) <= 3
    done += [finished.id for finished, _ in workers.finish()]
    workers.close()
    assert sorted(done) == [str(number) for number in range(10)]


@contextmanager
def pool(stage, processes=2, queue=8):
    workers = MaskWorkers(stage, processes, queue)
    try:
        yield workers
    finally:
        workers.close(cancel=True)


def finish(workers, jobs):
    """Reports by id."""
    return {job.id: report for job, report in chain(*(workers.submit(job) for job in jobs), workers.finish())}


def test_workers_killed_while_idle_are_replaced_and_nothing_is_lost(stage, tmp_path):
    jobs = [make_job(tmp_path, str(number), np.zeros((1, 2, 3))) for number in range(5)]
    with pool(stage) as workers:
        assert finish(workers, jobs[:1])["0"].problem is None
        for process in multiprocessing.active_children():
            process.kill()
        reports = finish(workers, jobs)
    assert {name: report.problem for name, report in reports.items()} == dict.fromkeys("01234")
    assert all(job.mask.is_file() for job in jobs)


def test_a_worker_that_came_while_another_died_is_not_waited_for(stage, tmp_path, monkeypatch):
    jobs = [make_job(tmp_path, str(number), np.zeros((1, 2, 3))) for number in range(3)]
    late = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(300,))
    begun = time.monotonic()
    with pool(stage) as workers:
        assert finish(workers, jobs[:1])["0"].problem is None
        (first,) = workers._executor._processes.values()
        late.start()
        monkeypatch.setattr(late, "terminate", lambda: None)  # as if the pool did not know it yet
        workers._executor._processes[late.pid] = late
        first.kill()
        reports = finish(workers, jobs)
    assert time.monotonic() - begun < 200
    assert {name: report.problem for name, report in reports.items()} == dict.fromkeys("012")


def test_a_photo_that_kills_its_worker_each_time_fails_alone(stage, tmp_path, monkeypatch):
    jobs = [make_job(tmp_path, str(number), np.zeros((1, 2, 3))) for number in range(6)]
    monkeypatch.setenv(DEADLY, "3")
    with pool(replace(stage, config=MaskConfig(refiner="none")), queue=3) as workers:
        monkeypatch.setattr(mask_workers, "_work", deadly_work)
        reports = finish(workers, jobs)
    problems = {name: report.problem for name, report in reports.items() if report.problem}
    assert list(problems) == ["3"]
    assert "3.png: its mask worker was ended from outside twice" in problems["3"]
    assert [job.mask.is_file() for job in jobs] == [True, True, True, False, True, True]
    assert not list(stage.scratch.iterdir())


def test_what_a_killed_worker_leaves_is_removed(tmp_path):
    """Workers beside the one that died are ended, too, in the middle of a file perhaps."""
    for name in ("in-work-123-7", "123-0", "123-1", "12-0"):
        (tmp_path / name).write_text(f"of {name}")
    assert mask_workers._ids_in_work(tmp_path) == ["of in-work-123-7"]
    assert [path.name for path in tmp_path.iterdir()] == ["12-0"]


def test_a_worker_killed_once_loses_no_photo(stage, tmp_path, monkeypatch):
    jobs = [make_job(tmp_path, str(number), np.zeros((1, 2, 3))) for number in range(6)]
    monkeypatch.setenv(DEADLY, "3")
    monkeypatch.setenv(ONCE, str(tmp_path / "killed"))
    with pool(stage, queue=3) as workers:
        monkeypatch.setattr(mask_workers, "_work", deadly_work)
        reports = finish(workers, jobs)
    assert (tmp_path / "killed").exists()
    assert {name: report.problem for name, report in reports.items()} == dict.fromkeys("012345")


def test_workers_that_never_begin_end_the_run_with_one_line(stage, tmp_path, monkeypatch):
    job = make_job(tmp_path, "one", np.zeros((1, 2, 3)))
    with pool(stage) as workers:
        monkeypatch.setattr(mask_workers, "_work", die_at_once)
        with pytest.raises(RunError, match="ended from outside before they begin"):
            finish(workers, [job])


@pytest.mark.parametrize("error", [MemoryError(), cv2.error("resize failed"), RuntimeError("CUDA error: no memory")])
def test_errors_of_the_refiner_are_problems_of_their_image(stage, tmp_path, monkeypatch, error):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(mask_workers, "mask_from_maps", broken)
    job = make_job(tmp_path, "one", np.zeros((1, 2, 3)))
    report = make_mask(stage, job)
    assert report.problem.startswith(f"{job.image}: ")
    assert "\n" not in report.problem
    assert not job.mask.exists()

"""Simulated clusters against times that can be worked out by hand, and the script on measured times."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.errors import UsageError
from wsss.benchmark import cluster_simulation, stage_times
from wsss.benchmark.cluster_simulation import SCHEDULES, ClusterCase, costs, seconds_of_parts, simulate
from wsss.benchmark.stage_times import STAGES, PhotoTimes

EVEN = np.full(40, 256.0)  # a photo a second


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_even_workers_end_together(schedule):
    outcome = simulate(ClusterCase(5, 40, schedule, start=0.0), EVEN)
    assert outcome.hours * 3600 == pytest.approx(8 * 256)
    assert outcome.efficiency == pytest.approx(1)
    assert (outcome.done == 1).all()


@pytest.mark.parametrize(("schedule", "starts"), [("shards", 1), ("queue", 1), ("array", 8)])
def test_every_started_task_loads_the_model(schedule, starts):
    # 5 workers, 40 parts: an array of 50 tasks is one of 40, 8 a worker.
    assert simulate(ClusterCase(5, 40, schedule, start=10.0), EVEN).hours * 3600 == pytest.approx(8 * 256 + starts * 10)


def test_one_slow_worker_holds_up_shards_and_not_a_queue():
    times = {
        schedule: simulate(ClusterCase(10, 40, schedule, slow=0.1, start=0.0), EVEN).hours * 3600 / 256
        for schedule in SCHEDULES
    }
    assert times["shards"] == pytest.approx(12)  # 4 parts, three times as slow
    assert times["queue"] == times["array"] == pytest.approx(6)  # its second part, begun at 3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_failures_lose_less_than_a_batch_each_and_no_part(schedule):
    case = ClusterCase(1, 40, schedule, hours_to_failure=0.25, away=100.0, start=0.0, batch=16)
    outcome = simulate(case, EVEN)
    assert outcome.failures > 5
    assert (outcome.done == 1).all()
    again = outcome.hours * 3600 - 40 * 256 - outcome.failures * 100
    assert 0 < again < outcome.failures * 16
    assert simulate(case, EVEN).hours == outcome.hours


def test_parts_are_drawn_from_the_measured_photos():
    found = seconds_of_parts(np.array([1.0, 3.0]), 5000)
    assert found.shape == (5000,)
    assert (found % 2 == 0).all()
    assert found.mean() == pytest.approx(512, rel=0.01)
    assert found.std() == pytest.approx(16, rel=0.1)


def test_wrong_clusters_and_files(tmp_path):
    with pytest.raises(UsageError, match="0 workers, 3 parts"):
        ClusterCase(0, 3)
    path = tmp_path / "times.json"
    for text in ("{", "[]", "{}", json.dumps(asdict(PhotoTimes(model=[1.0])))):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"times.json: not a file of wsss.benchmark.stage_times"):
            PhotoTimes.read(path)


def test_costs_of_a_billion_photos():
    times = PhotoTimes([0.1], [0.36], [0.72], [0.08], [2], [100_000], [5_000], [400], 30.0)
    text = costs(times, 1e9)
    assert "| model, hours of one model | 100,000 |" in text
    assert "| decoding, CRF and writing, core-hours | 250,000 |" in text
    assert "| cores beside one model, so that neither waits | 2.50 |" in text
    assert "| photos, TB | 100.0 |" in text
    assert "| tags, TB | 0.40 |" in text


def test_measure_then_simulate(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    renderer = SceneRenderer(SceneConfig(), 3)
    for number in range(3):
        Image.fromarray(renderer(number).image).save(tmp_path / "photos" / f"{number}.png")
    out = tmp_path / "times.json"
    argv = ["--images", str(tmp_path / "photos"), "--limit", "2", "--config", "demo/masks", "--out", str(out)]
    assert stage_times.main(argv) == 0
    times = PhotoTimes.read(out)
    assert all(len(getattr(times, stage)) == 2 and min(getattr(times, stage)) > 0 for stage in STAGES)
    assert min(times.tags) >= 1
    assert min(times.mask_bytes) > 100
    assert times.start > 0
    argv = ["--times", str(out), "--photos", "3000", "--workers", "1", "4", "--rate", "100"]
    argv += ["--out", str(tmp_path / "sim")]
    assert cluster_simulation.main(argv) == 0
    printed = capsys.readouterr().out
    assert "| 1e+09 photos | |" in printed
    assert "| 3000 | even, no failures | queue | 1 | 12.0 | 0.01 | 0 |" in printed
    lines = (tmp_path / "sim" / "efficiency.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 3 * 2
    assert Image.open(tmp_path / "sim" / "efficiency.png").size[0] > 500

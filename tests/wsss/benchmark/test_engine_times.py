"""Ways to do one run beside one another: seconds, and whether the bytes are the same."""

import sys

import pytest
from PIL import Image

from tagclip.demo.scenes import SceneConfig, SceneRenderer
from wsss.benchmark.engine_times import EngineTime, engine_table, finish_all, main, run_digests


def test_one_process_and_two_shards(tmp_path, capsys):
    renderer = SceneRenderer(SceneConfig(side=(96, 97), object_side=(40, 60), objects=(1, 2)), 1)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        Image.fromarray(renderer(number).image).save(photos / f"{number}.png")
    command = ["--images", str(photos), "--limit", "3", "--shards", "2", "--work", str(tmp_path / "work")]
    assert main(command) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| 1 process", "| 2 shards"]
    assert all(row.endswith("| 0 |") for row in rows)
    assert len(run_digests(tmp_path / "work" / "process-1")) > 6


def test_table_and_failures():
    times = [EngineTime("1 process", 100.0, 90.0, 0, 50), EngineTime("2 actors", 60.0, 90.0, 1, 50)]
    assert engine_table(times).splitlines()[-1] == "| 2 actors | 60 | 1.67 | -0.80 | 1 |"
    with pytest.raises(RuntimeError, match="no such thing"):
        finish_all([[sys.executable, "-c", "raise SystemExit('no such thing')"]])

"""Starts on done images, in small: every state is found as it is, without torch, and a row says what it took."""

import sys

import pytest

from tests.wsss.runs import draw_images
from wsss.benchmark import memory_growth, program_start, start_up


def rows_of(text):
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return lines[1:]  # less the head


def test_a_row_for_each_state(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [
        "start_up", "--images", "5", "--states", "done", "complete", "--repeats", "1", "--work", str(tmp_path / "work"),
    ])  # fmt: skip
    assert start_up.main() == 0
    rows = rows_of(capsys.readouterr().out)
    assert [row[:3] for row in rows] == [
        ["5", state, headers] for state in ("done", "complete") for headers in ("kept", "read again")
    ]
    for *_, seconds, core, memory in rows:
        assert 0 < float(core) <= float(seconds) + 1
        assert float(memory.replace(",", "")) < 300  # PyTorch alone takes more


def test_a_state_that_is_another_is_noticed(tmp_path):
    draw_images(tmp_path / "photos")
    with pytest.raises(RuntimeError, match=r"parts \[0\] are left"):
        start_up.start_again("done", tmp_path / "photos", tmp_path / "out")


def test_steps_of_a_start(tmp_path, monkeypatch):
    """The quick ones; as a benchmark each has a process of its own."""
    monkeypatch.setattr(sys, "argv", ["program_start"])
    program_start.take("python", tmp_path)
    program_start.take("help", tmp_path)
    with pytest.raises(Exception, match="weights"):
        program_start.take("model", tmp_path)


def test_memory_of_a_run(tmp_path, capsys):
    assert memory_growth.main(["--images", "3", "--stub-model", "--work", str(tmp_path / "growth")]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["3"]
    assert all(float(row[3].replace(",", "")) > 100 for row in rows)

"""The demo's command-line tools."""

import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[3] / "tools"


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_make_demo_scenes(tmp_path):
    look = ("--side", 96, 120, "--object-side", 30, 60)
    done = run(TOOLS / "make_demo_scenes.py", "--out", tmp_path / "scenes", "--count", 2, *look)
    assert done.returncode == 0, done.stderr
    assert "2 scenes in" in done.stdout
    assert len(list((tmp_path / "scenes/JPEGImages").glob("*.jpg"))) == 2


def test_unknown_class_is_one_line(tmp_path):
    done = run(TOOLS / "make_demo_scenes.py", "--out", tmp_path / "scenes", "--count", 1, "--classes", "quark")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the demo has no sprite for 'quark'")
    assert "Traceback" not in done.stderr

"""Processes do not import the script that started them."""

import subprocess
import sys
from pathlib import Path

import pytest

from wsss.files.spawning import without_main

SCRIPT = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from wsss.files.spawning import without_main
print("script", flush=True)
executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
with {context}():
    future = executor.submit(abs, -3)
print(future.result(), flush=True)
executor.shutdown()
"""


@pytest.mark.parametrize(("context", "code"), [("without_main", 0), ("nullcontext", 1)])
def test_a_script_without_a_guard_runs_once(tmp_path, context, code):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(context=context))
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, script], cwd=root, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == (code != 0), done.stderr
    if not code:
        assert done.stdout.split() == ["script", "3"]


def test_main_is_put_back():
    main = sys.modules["__main__"]
    with without_main():
        assert sys.modules["__main__"] is not main
    assert sys.modules["__main__"] is main
    with pytest.raises(KeyError), without_main():
        raise KeyError
    assert sys.modules["__main__"] is main

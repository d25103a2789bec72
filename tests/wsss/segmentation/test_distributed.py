"""Two processes train together over gloo, on a CPU: they share batches, and one writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from wsss.segmentation.checkpoints import read_training_checkpoint

ROOT = Path(__file__).parents[3]


def train_with_two(config_file, folders, work_dir) -> None:
    """A training by two processes."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--module",
        "tests.wsss.segmentation.distributed_child", str(config_file), str(folders / "run"), str(folders / "val"),
        str(work_dir),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_train_together(config_file, folders, tmp_path):
    work_dir = tmp_path / "work"
    train_with_two(config_file, folders, work_dir)
    checkpoint = read_training_checkpoint(work_dir / "iter_4.pth")
    assert checkpoint["meta"]["iter"] == 4
    summary = json.loads((work_dir / "summary.json").read_text())
    assert summary["images"] == 6
    assert summary["outcomes"][0]["best"] is not None
    written = {path.name for path in work_dir.iterdir()}
    assert {"curves.png", "summary.txt", "training.json"} <= written
    assert len([name for name in written if name[:8].isdigit()]) == 1  # one log folder: one process writes

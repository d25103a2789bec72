"""The script of a Slurm array, without Slurm: what it starts."""

import os
import subprocess

from tests.tools.commands import TOOLS

SCRIPT = TOOLS / "slurm_run.sh"


def start(tmp_path, **slurm: str) -> subprocess.CompletedProcess:
    fake = tmp_path / "tagclip"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "TAGCLIP": str(fake), **slurm}
    command = ["bash", str(SCRIPT), "--images", "my photos", "--out", "run"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_each_task_does_its_share(tmp_path):
    for number, minimum, share in (("3", "1", "3/16"), ("0", "0", "1/16"), ("15", "0", "16/16")):
        found = start(
            tmp_path, SLURM_ARRAY_TASK_ID=number, SLURM_ARRAY_TASK_MIN=minimum, SLURM_ARRAY_TASK_COUNT="16"
        )
        assert found.returncode == 0
        assert found.stdout.splitlines() == ["run", "--images", "my photos", "--out", "run", "--shard", share]


def test_without_an_array_it_says_how(tmp_path):
    found = start(tmp_path)
    assert found.returncode != 0
    assert "start this with sbatch --array=1-N" in found.stderr

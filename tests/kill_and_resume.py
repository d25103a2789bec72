"""Kills a command again and again, lets it resume each time, and compares its folder with an undisturbed one's.

    python -m tests.kill_and_resume --kills 10 --work DIR -- \
        tools/pipeline.py --config demo/masks --images scenes/JPEGImages --threads 1

The command must take `--out`; it is run with Python. Kills are SIGKILL to the whole process group, at moments spread at
random over the time that the undisturbed run took, so that later kills meet a run that is nearly done.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.wsss.runs import contents


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how often it is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, required=True, help="folder for the two runs; must not exist")
    parser.add_argument("command", nargs="+", help="script and its arguments, without --out")
    args = parser.parse_args()
    args.work.mkdir(parents=True)
    whole, killed = args.work / "whole", args.work / "killed"
    before = time.monotonic()
    subprocess.run([sys.executable, *args.command, "--out", str(whole)], check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - before
    print(f"undisturbed: {seconds:.0f} s, {len(contents(whole))} files", flush=True)
    moments, kills, starts = random.Random(args.seed), 0, 0
    while kills < args.kills:
        starts += 1
        # Start-up takes most of a short run: kills come between a tenth and all of an undisturbed run's time.
        survived = run_for(args.command, killed, moments.uniform(0.1, 1.0) * seconds)
        kills += not survived
        found = len(contents(killed)) if killed.is_dir() else 0
        print(f"{'ended by itself' if survived else f'kill {kills}'}: {found} files", flush=True)
        if survived:  # done before the kill: what is left of the kills starts with half of the files gone
            for path in random.Random(starts).sample(artefacts(killed), len(artefacts(killed)) // 2):
                path.unlink()
    subprocess.run([sys.executable, *args.command, "--out", str(killed)], check=True, stderr=subprocess.DEVNULL)
    one, two = contents(whole), contents(killed)
    different = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    print(f"{kills} kills, {starts + 1} starts: {len(one)} files, {len(different)} differ {different[:5]}")
    return 1 if different else 0


def artefacts(folder: Path) -> list[Path]:
    """Files of a run that it can make again."""
    return sorted([*folder.glob("masks/**/*.png"), *folder.glob("cams/**/*.npz")])


def run_for(command: list[str], out: Path, seconds: float) -> bool:
    """Whether the command ended by itself within that time; else it and all its children are killed.

    Raises:
        RuntimeError: it failed.
    """
    process = subprocess.Popen(
        [sys.executable, *command, "--out", str(out)], start_new_session=True, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    if code:
        raise RuntimeError(f"exit code {code}")
    return True


if __name__ == "__main__":
    sys.exit(main())

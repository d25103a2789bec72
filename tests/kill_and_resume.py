"""Kills commands again and again, lets them resume, and compares what they leave with what undisturbed ones leave.

    python -m tests.kill_and_resume --kills 20 --work DIR
    python -m tests.kill_and_resume --kills 20 --work DIR --only run segment

Scenes are drawn into DIR; then run, tag, mask, remask, train and segment are each done undisturbed and, into another
folder, with SIGKILLs to the whole process group at random moments. A command that ends before its kill loses half of
what it had made (the last checkpoint for `train`), so that later kills meet work as well. The result is a table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.wsss.runs import contents
from wsss.cli.main import main as main_of_tagclip

TAGCLIP = (sys.executable, "-m", "wsss.cli.main")
PRELOADED = ("torch", "open_clip", "mmengine.runner", "mmcv", "mmseg.apis", "wsss.pipeline.mask_run",
             "wsss.segmentation.training")  # fmt: skip
# What each command reads, done undisturbed where it is not among those that are killed.
NEEDS = {"run": (), "tag": (), "mask": ("tag",), "remask": ("run",), "train": ("run",), "segment": ("run", "train")}
MADE = ("**/*.png", "cams/**/*.npz")
VOLATILE = ("log.txt", "times.json", "plan.npz")


@dataclass(frozen=True)
class Command:
    """One command to kill: a subcommand of `tagclip` and its arguments without --out."""

    name: str
    arguments: tuple[str, ...]

    def line(self, folder: Path) -> list[str]:
        """The command line that works into `folder`."""
        return [*TAGCLIP, self.name, *self.arguments, "--out", str(folder), "--quiet"]


def commands(work: Path, iterations: int, limit: int) -> list[Command]:
    """The six commands, each on what the ones before have left in `work`."""
    scenes = work / "scenes"
    model = ("--model", "demo", "--classes", "voc", "--threads", "1")
    photos = ("--images", str(scenes / "JPEGImages"), "--limit", str(limit))
    run = str(work / "run" / "whole")
    training = ("--config", "demo/segmentation", "--run", run, "--val", str(scenes), "--iterations", str(iterations))
    checkpoint = str(work / "train" / "whole" / f"iter_{iterations}.pth")
    return [
        Command("run", (*photos, *model, "--config", "demo/masks")),
        Command("tag", (*photos, *model)),
        Command("mask", (*photos, *model, "--config", "demo/masks", "--tags", str(work / "tag" / "whole"))),
        Command("remask", ("--run", run, "--set", "masks.crf.iterations=5")),
        Command("train", training),
        Command("segment", ("--checkpoint", checkpoint, *photos, "--threads", "1")),
    ]


def kill_often(command: Command, work: Path, kills: int, rng: random.Random) -> str:
    """One row of the table."""
    folder = work / command.name
    folder.mkdir(parents=True, exist_ok=True)
    whole, killed = folder / "whole", folder / "killed"
    if not kills and whole.exists():  # left by an earlier call, for the commands that follow
        return f"| `tagclip {command.name}` | 0 | 0 | – | – |"
    shutil.rmtree(whole, ignore_errors=True)
    shutil.rmtree(killed, ignore_errors=True)
    start = time.monotonic()
    runs_for(command.line(whole), float("inf"))
    seconds = time.monotonic() - start
    if not kills:
        return f"| `tagclip {command.name}` | 0 | 0 | {seconds:.0f} | – |"
    done = starts = 0
    takes = seconds
    while done < kills:
        starts += 1
        # Start-up takes most of a short command: kills come between a quarter and all of an undisturbed one's time,
        # which is measured again whenever one was not killed, as other work comes and goes.
        ended = runs_for(command.line(killed), rng.uniform(0.25, 1.0) * takes)
        if ended is None:
            done += 1
        else:
            takes = min(takes, ended)
            lose_half(killed, rng)
        print(f"  {command.name}: {done} kills in {starts} starts", file=sys.stderr, flush=True)
    runs_for(command.line(killed), float("inf"))
    compare: Callable[[Path, Path], str] = compare_trainings if command.name == "train" else compare_files
    return f"| `tagclip {command.name}` | {done} | {starts + 1} | {seconds:.0f} | {compare(whole, killed)} |"


def compare_files(whole: Path, killed: Path) -> str:
    """How many files differ, and the first of them."""
    one, two = contents(whole, VOLATILE), contents(killed, VOLATILE)
    different = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    return f"{len(one)} files, {len(different)} differ" + (f" ({different[0]})" if different else "")


def compare_trainings(whole: Path, killed: Path) -> str:
    """Iterations and validation mIoU of both: the augmentation of what is repeated after a kill is another."""
    found = []
    for folder in (whole, killed):
        outcome = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["outcomes"][0]
        found.append((outcome["iterations"], outcome["last"]))
    return f"{found[0][0]} and {found[1][0]} iterations, mIoU {found[0][1]:.1f} and {found[1][1]:.1f}"


def lose_half(folder: Path, rng: random.Random) -> None:
    """Removes half of what a command can make again."""
    checkpoints = sorted(folder.glob("iter_*.pth"), key=lambda path: int(path.stem.removeprefix("iter_")))
    if checkpoints:
        checkpoints.pop().unlink()
        (folder / "last_checkpoint").unlink(missing_ok=True)
        if checkpoints:
            (folder / "last_checkpoint").write_text(str(checkpoints[-1]), encoding="utf-8")
        return
    made = sorted({path for pattern in MADE for path in folder.glob(pattern)})
    for path in rng.sample(made, len(made) // 2):
        path.unlink()


def runs_for(line: list[str], seconds: float) -> float | None:
    """How long a command took, if it ended by itself within that time; else it and all its children are killed.

    It runs in a fork of this process, which has the libraries loaded already: they take most of a short command's time,
    in which there is nothing to kill. Its mask workers are processes of their own as ever.

    Raises:
        RuntimeError: it failed.
    """
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(line[len(TAGCLIP) :])
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - start > seconds:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)
    if status:
        raise RuntimeError(f"{' '.join(line)}: exit code {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - start


def _become(arguments: list[str]) -> NoReturn:
    """Turns this fork into a command, the first of a process group of its own."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code: object = 1
    try:
        main_of_tagclip(arguments)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything")
    parser.add_argument("--kills", type=int, default=20, help="how often each command is killed")
    parser.add_argument("--scenes", type=int, default=16, help="how many scenes are drawn")
    parser.add_argument("--iterations", type=int, default=40, help="of the training")
    parser.add_argument("--limit", type=int, help="photos of run, tag, mask and segment; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="+", help="these commands; the others are done undisturbed only")
    args = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    if not (args.work / "scenes").exists():
        args.work.mkdir(parents=True)
        scenes = [*TAGCLIP, "demo", "scenes", "--out", str(args.work / "scenes"), "--count", str(args.scenes)]
        runs_for(scenes, float("inf"))
    rng = random.Random(args.seed)
    print("| command | kills | starts | undisturbed, s | result beside the undisturbed one |\n|---|---:|---:|---:|---|")
    wanted = set(args.only or NEEDS)
    needed = wanted | {name for one in wanted for name in NEEDS[one]}
    for command in commands(args.work, args.iterations, args.limit or args.scenes):
        if command.name in needed:
            print(kill_often(command, args.work, args.kills if command.name in wanted else 0, rng), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

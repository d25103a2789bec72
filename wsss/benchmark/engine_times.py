"""Seconds of one run by one process, by shards side by side, and by the Ray engine; and whether the bytes are the same.

    python -m wsss.benchmark.engine_times --images scenes --classes classes.txt --limit 100 --work DIR
    python -m wsss.benchmark.engine_times --images scenes --classes classes.txt --limit 100 --work DIR --actors 1 2 4

Each way is `tagclip run` in processes of its own, from the start of Python to the merged run. Every process computes
with one thread, so that a way is faster by the number of processes alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.benchmark.measure import machine

OF_THE_MOMENT = ("log.txt", "times.json", "plan.npz", "config.py")  # files of a run that need not be equal


@dataclass(frozen=True)
class EngineTime:
    """One way to do a run.

    Attributes:
        way: in words.
        wall, core: seconds, and processor seconds of all its processes; a Ray cluster's are not all counted.
        differing: files whose bytes are not those of one process.
        images: of the run.
    """

    way: str
    wall: float
    core: float
    differing: int
    images: int


def run_digests(out: Path) -> dict[str, str]:
    """Digest of each file of a run folder that must not depend on how it was made."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in OF_THE_MOMENT
    }


def finish_all(commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Runs commands side by side; wall and processor seconds.

    Raises:
        RuntimeError: one failed; its last line is said.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in running:
        _, said = process.communicate()
        if process.returncode:
            raise RuntimeError(said.strip().splitlines()[-1] if said.strip() else f"exit code {process.returncode}")
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_ways(
    arguments: Sequence[str], work: Path, images: int, shards: Sequence[int], actors: Sequence[int]
) -> list[EngineTime]:
    """One process, then shards, then actors.

    Args:
        arguments: of `tagclip run`, without --out.
        work: folder for the runs.
        images: of the run, for the table.
        shards, actors: numbers of them; each is a way.
    """
    line = [sys.executable, "-m", "wsss.cli.main", "run", *arguments]

    def commands(out: Path, kind: str, count: int) -> list[list[str]]:
        if kind == "shards":
            return [[*line, "--out", str(out), "--shard", f"{number}/{count}"] for number in range(1, count + 1)]
        more = ["--engine", "ray", "--actors", str(count)] if kind == "actors" else []
        return [[*line, "--out", str(out), *more]]

    ways = [("process", 1), *(("shards", count) for count in shards), *(("actors", count) for count in actors)]
    whole: dict[str, str] = {}
    found = []
    for kind, count in ways:
        out = work / f"{kind}-{count}"
        wall, core = finish_all(commands(out, kind, count))
        digests = run_digests(out)
        whole = whole or digests
        names = whole.keys() | digests.keys()
        differing = sum(whole.get(name) != digests.get(name) for name in names)
        found.append(EngineTime(f"{count} {kind}", wall, core, differing, images))
    return found


def engine_table(times: Sequence[EngineTime]) -> str:
    """Markdown; speeds are multiples of the first way's."""
    lines = [
        "| way | wall seconds | speed | seconds per image beyond the first way's | files that differ |",
        "|---|---:|---:|---:|---:|",
    ]
    first = times[0]
    for one in times:
        beyond = (one.wall - first.wall) / one.images
        lines.append(f"| {one.way} | {one.wall:.0f} | {first.wall / one.wall:.2f} | {beyond:+.2f} | {one.differing} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", required=True, metavar="DIR", help="folder of photos")
    add("--classes", default="voc", help="as `tagclip run` takes them")
    add("--limit", type=int, default=100, metavar="N", help="photos")
    add("--shards", type=int, nargs="*", default=[1, 2, 4], metavar="N", help="numbers of shards")
    add("--actors", type=int, nargs="*", default=[], metavar="N", help="numbers of actors (needs Ray)")
    add("--work", type=Path, required=True, metavar="DIR", help="folder for the runs, which must not exist")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True)
    arguments = [
        "--images", args.images, "--classes", args.classes, "--limit", str(args.limit), "--model", "demo",
        "--mask-workers", "1", "--workers", "1", "--device", "cpu", "--quiet",
    ]  # fmt: skip
    times = measure_ways(arguments, args.work, args.limit, args.shards, args.actors)
    print(json.dumps(machine("cpu", 1)))
    print(engine_table(times))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

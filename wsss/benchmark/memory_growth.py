"""Peak memory and pace of a whole run by the number of its images: flat, or it does not scale.

    python -m wsss.benchmark.memory_growth --images 1000 10000 100000 --work DIR

The images are one tiny picture under many names (hard links), the model is the embedded one; all stages are real: the
plan, decoding, tags, class maps, masks, records, and the closing order. With --stub-model the model does the first
batch of each size and repeats its answer, which is right, as all images are the same. The peak is that of the largest
process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from wsss.benchmark.measure import machine
from wsss.benchmark.start_up import link_files, stub_photo


def answer_once() -> None:
    """Makes the model of this process repeat its answer to the first batch of each size."""
    from wsss.pipeline.shared_pass import SharedPass

    real: Any = SharedPass.__call__
    answers: dict[int, list[Any]] = {}

    def repeated(self: Any, images: Any, known: Any, decide: Any) -> list[Any]:
        if len(images) not in answers:
            answers[len(images)] = real(self, images, known, decide)
        else:
            for place, found in enumerate(answers[len(images)]):
                decide(place, found.indices, found.scores)
        self.times.add("cams", 0.0, len(images))
        return answers[len(images)]

    SharedPass.__call__ = repeated  # type: ignore[assignment, method-assign]


def run_once(photos: Path, out: Path, stub: bool) -> tuple[float, float]:
    """`tagclip run` on a folder: wall seconds, and the peak memory of its largest process, MiB.

    Args:
        stub: see `answer_once`.

    Raises:
        RuntimeError: the run failed.
    """
    program = [sys.executable, "-m", *(["wsss.benchmark.memory_growth", "--child"] if stub else ["wsss.cli.main"])]
    command = [
        *program, "run", "--images", str(photos), "--classes", "voc", "--model", "demo",
        "--device", "cpu", "--refine", "none", "--batch-size", "64", "--out", str(out), "--quiet",
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000], metavar="N", help="how many")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for everything, must not exist")
    parser.add_argument("--stub-model", action="store_true", help="the model answers once and repeats itself")
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["--child"]:
        answer_once()
        sys.argv[1:] = words[1:]
        runpy.run_module("wsss.cli.main", run_name="__main__")  # ends the process
    args = parser.parse_args(words)
    args.work.mkdir(parents=True)
    print(json.dumps(machine("cpu", 1)))
    print("| images | seconds | images/s | peak memory, MiB |\n|---:|---:|---:|---:|")
    for count in args.images:
        photos = args.work / f"photos-{count}"
        photos.mkdir()
        link_files(photos, ".png", count, stub_photo(args.work))
        # A process per run, or the peak of an earlier one would stand.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            seconds, memory = process.submit(run_once, photos, args.work / f"run-{count}", args.stub_model).result()
        print(f"| {count:,} | {seconds:.0f} | {count / seconds:.0f} | {memory:,.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Seconds and memory from the start of Python to where work begins: imports, the model, and its text classifier.

    python -m wsss.benchmark.program_start --repeats 3

Each row is a process of its own; the rows build upon each other, so that what a step takes is the difference from the
row before it. The model is ViT-B/16 with random weights, loaded from a file, and the classifier that of COCO-Stuff: 171
classes in 85 sentences each, encoded once and then read from the cache.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from wsss.benchmark.resident_memory import resident

ARCHITECTURE = "ViT-B-16-quickgelu"
VOCABULARY = "cocostuff"
STEPS = {
    "python": "Python alone",
    "help": "`tagclip run --help`",
    "torch": "PyTorch imported",
    "tagger": "and open_clip, with the model's and the tagger's code",
    "model": "and ViT-B/16 loaded from a file",
    "encoded": "and its text classifier: 171 classes x 85 sentences, encoded",
    "cached": "the same, the classifier read from the cache",
}


def take(step: str, work: Path) -> None:
    """Goes as far as a step, in this process, which was made for it."""
    if step == "python":
        return
    if step == "help":
        sys.argv[1:] = ["run", "--help"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            runpy.run_module("wsss.cli.main", run_name="__main__")
        return
    import torch

    if step == "torch":
        return
    from tagclip.clip import build_text_classifier, load_clip
    from tagclip.config import TagCLIPConfig
    from tagclip.vocabulary import Vocabulary

    if step == "tagger":
        import tagclip.tagger  # noqa: F401

        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    clip = load_clip(ARCHITECTURE, str(work / "weights.safetensors"), device="cpu")
    if step == "model":
        return
    vocabulary = Vocabulary.named(VOCABULARY)
    rows = [*vocabulary.prompts, *((word,) for word in vocabulary.background)]
    build_text_classifier(clip, rows, TagCLIPConfig().templates, cache_dir=work / f"texts-{step}")


def measure_steps(work: Path, repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """Medians of seconds, core-seconds and peak memory (MiB) of each step.

    Raises:
        RuntimeError: a step failed.
    """
    from safetensors.torch import save_file

    from wsss.benchmark.settings import BenchmarkSettings
    from wsss.benchmark.workload import make_clip

    clip = make_clip(BenchmarkSettings(), "float32")
    save_file(
        {name: value.contiguous() for name, value in clip.model.state_dict().items()}, work / "weights.safetensors"
    )
    del clip
    take("cached", work)  # fills its cache
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    found: dict[str, dict[str, list[float]]] = {step: {} for step in STEPS}
    for number in range(repeats):
        for step in STEPS:
            if step == "encoded" and number:
                continue  # minutes, beside which start-up is nothing
            line = [sys.executable, "-m", "wsss.benchmark.program_start", "--child", step, "--work", str(work)]
            start = time.perf_counter()
            done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                raise RuntimeError(done.stderr)
            row = json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - start}
            for key, value in row.items():
                found[step].setdefault(key, []).append(value)
    return {step: {key: median(values) for key, values in columns.items()} for step, columns in found.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="processes of each step; medians are shown")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of PyTorch")
    parser.add_argument("--child", choices=tuple(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child is not None:
        take(args.child, args.work)
        print(json.dumps({"core": time.process_time(), "memory": resident("VmHWM")}))
        return 0
    from wsss.benchmark.measure import machine

    print(json.dumps(machine("cpu", args.threads)))
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory() as work:
        rows = measure_steps(Path(work), args.repeats, args.threads)
    print("| from the start of Python to | seconds | core-seconds | peak memory, MiB |\n|---|---:|---:|---:|")
    for step, row in rows.items():
        print(f"| {STEPS[step]} | {row['seconds']:.1f} | {row['core']:.1f} | {row['memory']:,.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

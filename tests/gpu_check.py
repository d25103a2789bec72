"""What `tools/gpu_check.sh` runs: core tests, golden arrays and speed on an accelerator, into one JSON.

    python -m tests.gpu_check --out runs/gpu_check.json [--device cpu]

`--device cpu` runs the same road on the CPU, which shows that it works before somebody has an accelerator.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tagclip.clip import load_clip
from tagclip.images import decode_image
from tagclip.tagger import TagCLIP
from tests.golden import COPY, golden_cases, golden_settings
from wsss.benchmark.accelerator import measure_accelerator
from wsss.benchmark.measure import machine
from wsss.benchmark.runner import run_benchmark
from wsss.benchmark.settings import BenchmarkSettings
from wsss.files.provenance import write_record
from wsss.maps.gradcam_source import GradCamSource

ROOT = Path(__file__).parents[1]
TEST_SECONDS = 120
FEW: dict[str, Any] = {"count": 2, "repeats": 1, "batch": 1, "dtypes": ("float32",)}
MANY: dict[str, Any] = {"count": 32, "repeats": 3, "batch": 16, "dtypes": ("float32", "bfloat16")}


def run_tests(device: torch.device, most: float = TEST_SECONDS) -> dict[str, Any]:
    """The tests that are written for every device, on this one, within so many seconds."""
    takes_a_device = re.compile(r"def test_\w+\([^)]*\bdevice\b")
    pages = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [str(path) for path in pages if takes_a_device.search(path.read_text(encoding="utf-8"))]
    command = [sys.executable, "-m", "pytest", "-v", "--durations=0", "-k", device.type, *files]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=most)
    except subprocess.TimeoutExpired:
        return {"seconds": most, "result": f"not done within {most:g} s"}
    lines = [line for line in done.stdout.splitlines() if re.search(r"\d+ (passed|failed)", line)]
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    result = lines[-1] if lines else f"exit code {done.returncode}"
    return {"seconds": round(time.perf_counter() - start, 1), "result": result, "failed": failed, "files": len(files)}


def golden_differences(device: torch.device) -> dict[str, float]:
    """Largest differences between the recorded arrays and what is computed on a device in float32."""
    clip = load_clip(str(COPY / "model.safetensors"), device=device)
    found = {"scores": 0.0, "cams": 0.0}
    for case in golden_cases("tag"):
        recorded = case.arrays()
        recipe = golden_settings(case.vocabulary, "reference")
        scores = TagCLIP(clip, recipe.vocabulary, config=recipe.tagging)([case.image()])[0].scores
        found["scores"] = max(found["scores"], float(abs(scores - recorded["scores"]).max()))
    for case in golden_cases("cam"):
        recorded = case.arrays()
        recipe = golden_settings(case.vocabulary, "reference")
        source = GradCamSource(clip, recipe.vocabulary, config=recipe.masks)  # no mask: that may need pydensecrf
        image = source.prepare(decode_image(case.image(), apply_exif=recipe.masks.image.apply_exif))
        trunk = clip.trunk(image[None], source.request, position_rounding=recipe.masks.image.position_rounding)
        (maps,) = source.maps_from_trunk(trunk, [recorded["ids"].tolist()])
        raw = maps.raw
        found["cams"] = max(found["cams"], float(abs(raw - recorded["cam"]).max()))
    return found


def speed(device: torch.device) -> dict[str, Any]:
    """Images per second of tags and class maps, ViT-B/16 shapes, random weights."""
    size = FEW if device.type == "cpu" else MANY
    settings = BenchmarkSettings(device=str(device), tags=(2,), baseline=False, crf=False, memory=False, **size)
    return run_benchmark(settings, note=lambda text: print(f"[{text}]", file=sys.stderr, flush=True))


def pace(device: torch.device) -> dict[str, Any]:
    """Photos per second by batch, the CRF's milliseconds, and the device's memory."""
    few = device.type == "cpu"
    count = 2 if few else 16
    settings = BenchmarkSettings(device=str(device), tags=(2,), baseline=False, preset="default", count=count)
    if few:
        return measure_accelerator(replace(settings, dtypes=("float32",)), batches=(1,), seconds=0.1)
    return measure_accelerator(settings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file for all figures")
    parser.add_argument("--device", help="default: cuda, which must be there")
    parser.add_argument("--test-seconds", type=float, default=TEST_SECONDS, help="most time of the tests")
    args = parser.parse_args()
    if args.device is None and not torch.cuda.is_available():
        print("error: no accelerator here; --device cpu runs the same checks on the CPU", file=sys.stderr)
        return 2
    device = torch.device(args.device or "cuda")
    start = time.perf_counter()
    record: dict[str, Any] = {
        "machine": machine(str(device), torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
    }
    tests = partial(run_tests, most=args.test_seconds)
    for name, check in (("tests", tests), ("golden", golden_differences), ("speed", speed), ("pace", pace)):
        print(f"[{name}]", file=sys.stderr, flush=True)
        record[name] = check(device)
        record["seconds"] = round(time.perf_counter() - start, 1)
        write_record(args.out, record)
    print(record["pace"]["table"])
    print(json.dumps({key: record[key] for key in ("device", "tests", "golden", "seconds")}, indent=1))
    print(f"all figures: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`tagclip benchmark`: time, arithmetic and memory of tags and class maps."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from wsss.cli.console import setup_logging
from wsss.cli.options import pick
from wsss.cli.parser import add_command
from wsss.cli.screen import Output

ORACLE = Path("tests", "oracle")  # below the working directory, as in a clone
FIELDS = {  # of BenchmarkSettings, by option
    "model": "model", "pretrained": "pretrained", "quick_gelu": "quick_gelu", "config": "config",
    "classes": "vocabulary",
    "preset": "preset", "tags_per_image": "tags", "size": "size", "images": "images", "limit": "count",
    "repeats": "repeats", "batch_size": "batch", "dtype": "dtypes", "cam_precision": "cam_precision",
    "device": "device", "threads": "threads", "baseline": "baseline",
    "oracle": "oracle", "crf": "crf", "memory": "memory", "seed": "seed",
}  # fmt: skip


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "benchmark", run=benchmark,
        help="Measure time, arithmetic and memory of tags and class maps beside the baseline procedure.",
        text="Without --model, a ViT-B/16 with random weights: nothing is downloaded. Without --images, noise.\n"
        "--model random:ARCHITECTURE takes any architecture of open_clip.",
        example="benchmark --tags-per-image 1 2 4 --size 500x375 --json bench.json",
    )  # fmt: skip
    pick(
        parser, *(name.replace("_", "-") for name in FIELDS), "json", "quiet",
        several=("tags-per-image", "dtype"),
        notes={"dtype": "several: side by side", "tags-per-image": "one case for each K",
               "device": "anything but cpu needs --no-baseline", "oracle": "default: tests/oracle, where that is"},
    )  # fmt: skip


def benchmark(args: argparse.Namespace) -> int:
    """Measures and shows the tables."""
    setup_logging(args.quiet)
    from wsss.benchmark.report import tables
    from wsss.benchmark.settings import BenchmarkSettings

    values = {field: getattr(args, name) for name, field in FIELDS.items()}
    given: dict[str, Any] = {field: value for field, value in values.items() if value is not None}
    if "images" in given:
        given["images"] = Path(given["images"])
    if "oracle" not in given and given.get("baseline") is not False:
        given |= {"oracle": ORACLE} if ORACLE.is_dir() else {"baseline": bool(given.get("baseline"))}
    for name, value in given.items():
        given[name] = tuple(value) if isinstance(value, list) else value
    settings = BenchmarkSettings(**given)
    from tagclip.devices import resolve_device
    from wsss.benchmark.runner import run_benchmark

    resolve_device(settings.device)

    def note(text: str) -> None:
        if not args.quiet:
            print(f"[{text}]", file=sys.stderr, flush=True)

    output = Output.of(args)
    result = run_benchmark(settings, note=note)
    output.show(tables(result))
    output.figures(result)
    return 0

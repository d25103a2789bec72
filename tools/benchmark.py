"""Time, arithmetic and memory of tags and CAMs, beside the straightforward procedure, stage by stage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from tagclip.devices import resolve_device
from wsss.benchmark.report import tables
from wsss.benchmark.settings import BenchmarkSettings
from wsss.cli.console import DTYPES, positive, run_main, setup_logging


def size(text: str) -> tuple[int, int]:
    """argparse type of WIDTHxHEIGHT."""
    width, cross, height = text.partition("x")
    if not cross:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, like 500x375")
    return positive(width), positive(height)


def parser() -> argparse.ArgumentParser:
    """The command line; its defaults are those of `BenchmarkSettings`."""
    result = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = result.add_argument
    add("--model", help="random:ARCHITECTURE of open_clip (nothing is downloaded), or what other tools take")
    add("--pretrained", help="open_clip tag or weights file for --model")
    add("--quick-gelu", action=argparse.BooleanOptionalAction, default=None,
        help="activation of a model file that does not tell")
    add("--config", metavar="NAME|FILE", help="data set whose constants and classes are used, e.g. masks/cocostuff")
    add("--vocabulary", metavar="NAME|FILE", help="other classes than the config's: built-in name or class file")
    add("--preset", choices=("reference", "default"), help="reference gives the straightforward procedure's outputs")
    add("--tags", type=positive, nargs="+", metavar="K", help="tags an image, and as many crops; one case each")
    add("--size", type=size, metavar="WxH", help="of the photos")
    add("--images", type=Path, metavar="DIR", help="photos, of which those of --size are taken; default: noise")
    add("--count", type=positive, metavar="N", help="photos a case")
    add("--repeats", type=positive, metavar="N", help="timed rounds")
    add("--batch", type=positive, metavar="N", help="photos a forward pass")
    add("--dtypes", choices=DTYPES, nargs="+", help="of ours, side by side; the first is the others' yardstick")
    add("--cam-precision", choices=("float32", "model"), help="of the last block in Grad-CAM")
    add("--device", help="cpu, cuda, ... (without the straightforward procedure)")
    add("--threads", type=positive, metavar="N", help="CPU threads")
    add("--seed", type=int, help="of random weights and noise")
    for name in ("baseline", "crf", "memory"):
        add(f"--no-{name}", dest=name, action="store_false", default=None, help=f"leave out: {name}")
    add("--json", type=Path, metavar="FILE", help="write all figures here")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    args = vars(parser().parse_args(argv))
    setup_logging()
    known = {field.name for field in fields(BenchmarkSettings)}
    given = {name: value for name, value in args.items() if name in known and value is not None}
    settings = BenchmarkSettings(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})
    resolve_device(settings.device)
    from wsss.benchmark.runner import run_benchmark

    result = run_benchmark(settings, note=lambda text: print(f"[{text}]", file=sys.stderr, flush=True))
    print(tables(result))
    if args["json"] is not None:
        args["json"].parent.mkdir(parents=True, exist_ok=True)
        args["json"].write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_main(main)

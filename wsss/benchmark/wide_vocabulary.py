"""Memory and seconds of tagging with very many classes: in parts of classes, beside all classes at once.

    python -m wsss.benchmark.wide_vocabulary --classes 1000 10000 --side 1024

A model of ViT-B/16's shape with random weights scores one picture of noise; its text rows are random too. Each case
runs in a process of its own, whose memory counts from before the model is made.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from tagclip import dmar
from tagclip.clip import build_text_classifier, load_clip, prompts
from tagclip.config import TagCLIPConfig
from tagclip.tagger import TagCLIP
from tagclip.vocabulary import Vocabulary
from wsss.benchmark.measure import machine
from wsss.benchmark.resident_memory import PeakMemory
from wsss.benchmark.settings import BenchmarkSettings
from wsss.benchmark.workload import make_clip, textured_noise

AT_ONCE = 1 << 30  # more classes or prompts than anybody has: the plain form


@dataclass(frozen=True)
class WideCase:
    """One picture through one form: peak memory in MiB, seconds, and scores, (classes,) float32."""

    peak: float
    seconds: float
    scores: np.ndarray


def score_wide(classes: int, side: int, parts: bool) -> WideCase:
    """Scores one square picture with random rows for `classes` classes; sets this process to one form for good."""
    if not parts:
        dmar.CLASSES_AT_ONCE = AT_ONCE
    memory = PeakMemory()
    clip = make_clip(BenchmarkSettings(), "float32")
    tagger = TagCLIP(clip, _vocabulary(classes), config=TagCLIPConfig(templates=("{}",)))
    generator = torch.Generator().manual_seed(classes)
    tagger.classifier = F.normalize(torch.randn(classes, clip.embed_dim, generator=generator), dim=-1)
    image = textured_noise(side, side, np.random.default_rng(side))
    start = time.perf_counter()
    result = tagger(image)
    return WideCase(memory.peak, time.perf_counter() - start, result.scores)


def classify_wide(classes: int, parts: bool) -> WideCase:
    """Text rows of `classes` names with the demo model and TagCLIP's templates; `scores` is one number of each row."""
    if not parts:
        prompts.PROMPTS_AT_ONCE = AT_ONCE
    clip = load_clip("demo")
    memory = PeakMemory()
    start = time.perf_counter()
    rows = build_text_classifier(clip, _vocabulary(classes).names, TagCLIPConfig().templates)
    seconds = time.perf_counter() - start
    return WideCase(memory.peak, seconds, rows[:, 0].numpy())


def _vocabulary(classes: int) -> Vocabulary:
    return Vocabulary([f"thing {number}" for number in range(classes)])


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a Markdown table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[1000, 10000], metavar="N", help="Numbers of classes")
    parser.add_argument("--side", type=int, default=1024, metavar="PX", help="Side of the square picture")
    parser.add_argument("--text-classes", type=int, nargs="*", default=[1000], metavar="N",
                        help="Numbers of classes whose text rows are made too, 85 prompts each")  # fmt: skip
    args = parser.parse_args(argv)
    print("; ".join(f"{name} {value}" for name, value in machine("cpu", torch.get_num_threads()).items()))
    print("\n| what | classes | form | peak memory, MiB | seconds | largest difference |")
    print("|---|---:|---|---:|---:|---:|")
    for classes in args.classes:
        print(_rows(f"one picture, {args.side} px", classes, score_wide, (classes, args.side)), flush=True)
    for classes in args.text_classes:
        print(_rows("text rows", classes, classify_wide, (classes,)), flush=True)
    return 0


def _rows(what: str, classes: int, measure: Callable[..., WideCase], arguments: tuple[int, ...]) -> str:
    found = {}
    for form, parts in (("all at once", False), ("in parts", True)):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found[form] = process.submit(measure, *arguments, parts).result()
    plain = found["all at once"].scores
    return "\n".join(
        f"| {what} | {classes:,} | {form} | {case.peak:,.0f} | {case.seconds:.1f} | "
        f"{_furthest(case.scores, plain):.1e} |"
        for form, case in found.items()
    )


def _furthest(values: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(values - others).max())


if __name__ == "__main__":
    raise SystemExit(main())

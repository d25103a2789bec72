"""Peak memory of training-free strategies with many classes on a large photo, each in a process of its own.

    python -m wsss.benchmark.dense_memory --model random:ViT-B-16-quickgelu --strategies clip scclip

The photo is noise of `--size`, the classes are those of a built-in vocabulary or a file (COCO-Stuff's 171 unless told),
one prompt per name. Memory counts from before the model is made. Sources of class maps take all classes as tags,
without CRF, as `tagclip compare` does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from tagclip.errors import TagclipError
from wsss.benchmark.resident_memory import PeakMemory
from wsss.benchmark.settings import BenchmarkSettings
from wsss.benchmark.workload import make_clip, textured_noise
from wsss.config import MaskConfig
from wsss.dense.comparison import SOURCES
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.dense.strategy import strategy_names
from wsss.files.sources import load_vocabulary
from wsss.masks.generator import MaskGenerator


@dataclass(frozen=True)
class DenseCost:
    """One photo through one strategy: resident memory with the model loaded, and the peak, in MiB; seconds."""

    loaded: float
    peak: float
    seconds: float


def label_large_photo(strategy: str, model: str, classes: str, size: tuple[int, int], mode: str) -> DenseCost:
    """Labels one photo of (width, height) pixels; to be called in a process of its own.

    Raises:
        UsageError: no such strategy, model or vocabulary.
    """
    torch.set_num_threads(1)
    memory, vocabulary = PeakMemory(), load_vocabulary(classes)
    clip = make_clip(BenchmarkSettings(model=model), "float32")
    image = textured_noise(*size, np.random.default_rng(0))
    if strategy in SOURCES:
        config = replace(MaskConfig.preset("default"), refiner="none", confidence=None)  # as `tagclip compare` has them
        source = SOURCES[strategy](clip, vocabulary, config=config)
        start, loaded = time.perf_counter(), memory.peak
        trunk = source.trunk(source.prepare(image)[None])
        found = source.maps_from_trunk(trunk, [list(range(len(vocabulary)))])[0]
        MaskGenerator(source).mask_from_maps(image, found.maps, list(range(len(vocabulary))))
    else:
        dense = DenseConfig(strategy=strategy, mode=mode, templates=("{}",))  # type: ignore[arg-type]
        segmenter = DenseSegmenter(clip, vocabulary, dense)
        start, loaded = time.perf_counter(), memory.peak
        segmenter(image)
    return DenseCost(loaded, memory.peak, time.perf_counter() - start)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a Markdown table, row by row; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--strategies", nargs="+", default=strategy_names(), metavar="NAME", help="Which (default: all)"
    )
    parser.add_argument("--model", default="random:ViT-B-16-quickgelu", help="As `tagclip benchmark --model` takes it")
    parser.add_argument("--classes", default="cocostuff", help="Built-in vocabulary or class file")
    parser.add_argument("--size", type=int, nargs=2, default=(2048, 1024), metavar=("W", "H"), help="Of the photo")
    parser.add_argument("--mode", default="whole", choices=("whole", "slide"), help="How the photo is seen")
    args = parser.parse_args(argv)
    print("| strategy | model loaded, MiB | peak, MiB | seconds |\n|---|---:|---:|---:|", flush=True)
    measure = partial(label_large_photo, model=args.model, classes=args.classes, size=tuple(args.size), mode=args.mode)
    try:
        for strategy in args.strategies:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                cost = process.submit(measure, strategy).result()
            print(f"| {strategy} | {cost.loaded:,.0f} | {cost.peak:,.0f} | {cost.seconds:.3f} |", flush=True)
    except TagclipError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

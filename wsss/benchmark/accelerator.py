"""Photos per second of a model on an accelerator, by dtype and batch, and milliseconds of CRF and PAMR there.

    python -m wsss.benchmark.accelerator --device cuda --batches 1 4 16 64 --out accelerator.json

Prepared photos lie in memory, so that decoding and writing do not count. Unlike `tagclip benchmark`, which times every
stage by itself, nothing waits for the device but what the stages themselves wait for.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from tagclip.clip import Grid
from tagclip.cwr import find_candidates
from tagclip.devices import default_device
from tagclip.errors import TagclipError
from tagclip.images import decode_image
from tagclip.tagger import TagCLIP
from wsss.benchmark.measure import GIGA, MEBIBYTE, Clock, FlopClock, PeakSettings, machine, matmul_peak
from wsss.benchmark.procedure import FastProcedure
from wsss.benchmark.settings import BenchmarkSettings
from wsss.benchmark.workload import ClassRows, Photo, choose_tags, make_clip, make_rows, open_photos, read_recipe
from wsss.config import CrfConfig, PamrConfig
from wsss.maps.gradcam_source import GradCamSource
from wsss.masks.crf_tensors import dense_crf
from wsss.masks.pamr import refine_with_pamr
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.shared_pass import SharedPass

BATCHES = (1, 4, 16, 64)
SECONDS = 2.0  # of a measurement, at least
LABELS = (2, 3, 5, 21)
WARM_UPS = 2
FEW: dict[str, Any] = {"labels": (2,), "repeats": 1}  # of the CRF on a CPU, where `crf_engines` measures it


@dataclass(frozen=True)
class Pace:
    """One row of the table.

    Attributes:
        dtype, batch: of the model; photos in one pass.
        tags, maps: photos per second: tags alone; tags and class maps.
        tags_share, maps_share: of the device's highest rate of matrix products in this dtype.
        memory: peak on the device with tags and maps, MiB; None on a CPU.
        crops: of CWR, per photo.
    """

    dtype: str
    batch: int
    tags: float
    maps: float
    tags_share: float
    maps_share: float
    memory: float | None
    crops: float


def measure_paces(
    settings: BenchmarkSettings,
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    note: Callable[[str], None] = lambda text: None,
) -> list[Pace]:
    """The settings' model on their device, in each of their dtypes with each batch.

    Args:
        settings: of them the model, data set, photos, device, dtypes, the first number of tags and the seed.
        batches: numbers of photos that go through the model together.
        seconds: of each measurement, at least.
        note: told what is being done.
    """
    paces = []
    with open_photos(settings) as photos:
        recipe = read_recipe(settings)
        for dtype in settings.dtypes:
            note(f"{dtype}: model")
            bench = _Bench(settings, dtype, recipe, photos)
            for batch in batches:
                note(f"{dtype}: batches of {batch}")
                paces.append(bench.pace(batch, seconds))
    return paces


class _Bench:
    """A model with prepared photos on its device, each with a fixed number of tags and as many crops of CWR."""

    def __init__(self, settings: BenchmarkSettings, dtype: str, recipe: Recipe, photos: Sequence[Photo]):
        self.dtype, self.device = dtype, torch.device(settings.device)
        clip = make_clip(settings, dtype)
        rows = make_rows(settings, clip, recipe, list(photos))
        procedure = FastProcedure(clip, recipe, rows)
        self.images = procedure.prepare(photos)
        self.grid = Grid(*(side // clip.patch_size for side in self.images.shape[-2:]))
        tagged = []
        with torch.no_grad():
            for place, photo in enumerate(photos):
                local, patches = procedure.tag_locally(procedure.trunk(self.images[place : place + 1]), Clock())
                bounds = float(patches.min()), float(patches.max())
                tagged.append(choose_tags(photo, local[0].cpu().numpy(), *bounds, settings.tags[0]))
        self.labels = [list(photo.labels) for photo in tagged]
        threshold = median(photo.threshold for photo in tagged)
        tagging = replace(recipe.tagging, cwr=replace(recipe.tagging.cwr, threshold=threshold))
        self.tagger = TagCLIP(clip, recipe.vocabulary, config=tagging)
        self.tagger.classifier = torch.from_numpy(rows.tagging).to(self.device)
        source = GradCamSource(clip, recipe.vocabulary, config=recipe.masks)
        source.tag_rows = torch.from_numpy(rows.cam).to(self.device)
        source.background_rows = torch.from_numpy(rows.cam_background).to(self.device)
        self.both = SharedPass(source, self.tagger)
        largest = PeakSettings(images=(1, 4, 32)) if self.device.type != "cpu" else None
        self.peak = matmul_peak(1 + self.grid.count, clip.width, clip.dtype, self.device, largest)
        self.flop = _count_flop(settings, recipe, rows, tagged[0])
        stages = self.tagger.stages(self.tagger.trunk(self.images), self.images)
        self.crops = float(find_candidates(stages.local, stages.refined, threshold).sum(1).float().mean())

    def pace(self, batch: int, seconds: float) -> Pace:
        indices = [place % len(self.images) for place in range(batch)]
        images = self.images[indices]
        labels = [self.labels[place] for place in indices]

        def tags() -> None:
            self.tagger.results(self.tagger.score(images), self.grid)

        def maps() -> None:
            self.both(images, decide=lambda place, *_: labels[place])

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        rates = {"tags": self._rate(tags, batch, seconds), "maps": self._rate(maps, batch, seconds)}
        memory = torch.cuda.max_memory_allocated(self.device) / MEBIBYTE if self.device.type == "cuda" else None
        shares = {part: rate * self.flop[part] / self.peak for part, rate in rates.items()}
        return Pace(self.dtype, batch, rates["tags"], rates["maps"], shares["tags"], shares["maps"], memory, self.crops)

    def _rate(self, work: Callable[[], None], batch: int, seconds: float) -> float:
        for _ in range(WARM_UPS):
            work()
        self._wait()
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            work()
            done += batch
        self._wait()
        return done / (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _count_flop(settings: BenchmarkSettings, recipe: Recipe, rows: ClassRows, photo: Photo) -> dict[str, float]:
    """GFLOP of a photo; counted on the CPU, where every product is one that the counter knows."""
    procedure = FastProcedure(make_clip(replace(settings, device="cpu"), "float32"), recipe, rows)
    clock = FlopClock()
    procedure([photo], clock)
    tags = sum(clock.flop[stage] for stage in procedure.stage_one)
    return {"tags": tags / GIGA, "maps": sum(clock.flop.values()) / GIGA}


@dataclass(frozen=True)
class CrfPace:
    """Milliseconds of the CRF on tensors per photo, and of PAMR, which `--refine pamr` takes in its place.

    Attributes:
        labels: of each photo.
        alone, together: a photo by itself, and `photos` of them in one call; medians.
        pamr: a photo by itself; median.
        memory: peak on the device of those in one call, MiB; None on a CPU.
    """

    labels: int
    alone: float
    together: float
    pamr: float
    photos: int
    memory: float | None


def measure_crf(
    pictures: Sequence[np.ndarray], device: torch.device, labels: Sequence[int] = LABELS, repeats: int = 9
) -> list[CrfPace]:
    """The CRF on tensors, and PAMR, with random scores.

    Args:
        pictures: (H, W, 3) uint8 each.
        labels: numbers of labels; a row for each.
        repeats: measurements, of which the median counts, after one that does not.
    """
    images = [torch.from_numpy(picture).to(device) for picture in pictures]
    paces = []
    for count in labels:
        generator = torch.Generator().manual_seed(count)
        scores = [torch.rand(count, *image.shape[:2], generator=generator).to(device) for image in images]
        times: dict[int, list[float]] = {1: [], len(images): []}
        pamr: list[float] = []
        memory = None
        for together, found in times.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            for number in range(repeats + 1):
                first = number % (len(images) - together + 1)
                part, clock = slice(first, first + together), Clock(device)
                with clock("crf"):
                    dense_crf(images[part], scores[part], CrfConfig())
                if number:
                    found.append(clock.seconds["crf"] * 1000 / together)
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device) / MEBIBYTE
        for number in range(repeats + 1):
            image, clock = images[number % len(images)].permute(2, 0, 1), Clock(device)
            with clock("pamr"):
                refine_with_pamr(image, scores[number % len(images)], PamrConfig())
            if number:
                pamr.append(clock.seconds["pamr"] * 1000)
        paces.append(CrfPace(count, median(times[1]), median(times[len(images)]), median(pamr), len(images), memory))
    return paces


def measure_accelerator(
    settings: BenchmarkSettings,
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Paces and CRF of a device, for a JSON file: `machine`, `paces`, `crf`, and both as a Markdown `table`."""
    paces = measure_paces(settings, batches, seconds, note)
    note("CRF")
    with open_photos(replace(settings, count=min(settings.count, 8))) as photos:
        pictures = [decode_image(photo.path) for photo in photos]
    crf = measure_crf(pictures, torch.device(settings.device), **({} if settings.device != "cpu" else FEW))
    return {
        "machine": machine(settings.device, settings.threads),
        "paces": [asdict(row) for row in paces],
        "crf": [asdict(row) for row in crf],
        "table": f"{pace_table(paces)}\n\n{crf_table(crf)}",
    }


def pace_table(paces: Sequence[Pace]) -> str:
    """Markdown."""
    lines = [
        "| dtype | photos together | photos/s, tags | share of the peak | photos/s, tags and class maps | "
        "share of the peak | memory, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in paces:
        memory = "" if row.memory is None else f"{row.memory:.0f}"
        rates = f"{row.tags:.1f} | {row.tags_share:.1%} | {row.maps:.1f} | {row.maps_share:.1%}"
        lines.append(f"| {row.dtype} | {row.batch} | {rates} | {memory} |")
    return "\n".join(lines)


def crf_table(paces: Sequence[CrfPace]) -> str:
    """Markdown."""
    lines = [
        "| labels | CRF, ms, a photo alone | ms per photo, several together | photos | memory, MiB | PAMR, ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in paces:
        memory = "" if row.memory is None else f"{row.memory:.0f}"
        times = f"{row.alone:.1f} | {row.together:.1f} | {row.photos} | {memory} | {row.pamr:.1f}"
        lines.append(f"| {row.labels} | {times} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", default=str(default_device()), help="Where to compute")
    add("--images", type=Path, metavar="DIR", help="Photos, of which those of 500 x 375 pixels are taken")
    add("--count", type=int, default=16, metavar="N", help="Different photos")
    add("--batches", type=int, nargs="+", default=list(BATCHES), metavar="N", help="Photos in one pass")
    add("--dtypes", nargs="+", default=["float32", "bfloat16"], metavar="DTYPE", help="Of the model")
    add("--seconds", type=float, default=SECONDS, help="Of each measurement, at least")
    add("--out", type=Path, required=True, metavar="FILE", help="Where the numbers go, JSON")
    args = parser.parse_args(argv)
    settings = BenchmarkSettings(
        device=args.device, images=args.images, count=args.count, dtypes=tuple(args.dtypes), tags=(2,), baseline=False,
        preset="default",
    )  # fmt: skip
    try:
        found = measure_accelerator(settings, args.batches, args.seconds, lambda text: print(f"[{text}]", flush=True))
    except TagclipError as error:
        parser.exit(2, f"error: {error}\n")
    args.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(found["table"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

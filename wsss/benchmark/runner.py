"""Runs a benchmark: all sides in one process, photo by photo in turn, so that a busy moment hits all of them."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch

from tagclip.clip import FrozenCLIP
from tagclip.images import decode_image
from wsss.benchmark.agreement import compare_results
from wsss.benchmark.baseline import BaselineProcedure, oracle_of
from wsss.benchmark.measure import GIGA, MEBIBYTE, Clock, FlopClock, machine, matmul_peak
from wsss.benchmark.procedure import FastProcedure, PhotoResult
from wsss.benchmark.resident_memory import PeakMemory
from wsss.benchmark.settings import BASELINE, BenchmarkSettings
from wsss.benchmark.workload import (
    ClassRows,
    Photo,
    batches,
    choose_tags,
    make_clip,
    make_rows,
    open_photos,
    read_recipe,
)
from wsss.config import CrfConfig
from wsss.masks.crf import crf_engine
from wsss.masks.label_map import mask_from_maps
from wsss.pipeline.recipe import Recipe

Procedure = FastProcedure | BaselineProcedure


def run_benchmark(settings: BenchmarkSettings, note: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """All measurements, as they go into the JSON; see `docs/results/speed.md` for how they read.

    Args:
        note: told what is being done.
    """
    torch.set_num_threads(settings.threads)
    result: dict[str, Any] = {"settings": settings.to_dict(), "machine": machine(settings.device, settings.threads)}
    with open_photos(settings) as photos:
        note("model")
        recipe = read_recipe(settings)
        clips = {dtype: make_clip(settings, dtype) for dtype in settings.dtypes}
        rows = make_rows(settings, next(iter(clips.values())), recipe, photos)
        bench = _Bench(settings, recipe, rows, clips)
        note("matrix-multiply peak")
        tokens = bench.count_tokens(photos[0])
        peaks = bench.peaks(tokens)
        result["tokens"] = tokens
        result["cases"] = []
        for count in settings.tags:
            note(f"{count} tags per image")
            result["cases"].append(bench.case([bench.tagged(photo, count) for photo in photos]))
        later = bench.peaks(tokens)  # a peak measured in a busy moment would flatter the shares
        result["peak_gflop_per_s"] = {dtype: max(rate, later[dtype]) for dtype, rate in peaks.items()}
        result["cases"] = [bench.with_shares(case, result["peak_gflop_per_s"]) for case in result["cases"]]
        if settings.memory:
            note("memory")
            tagged = [bench.tagged(photo, max(settings.tags)) for photo in photos]
            result["memory"] = {side: _memory_of(side, settings, rows, tagged) for side in bench.sides}
    return result


class _Bench:
    """The sides of a benchmark by name: the baseline, then ours by dtype."""

    def __init__(self, settings: BenchmarkSettings, recipe: Recipe, rows: ClassRows, clips: dict[str, FrozenCLIP]):
        self.settings, self.vocabulary, self.clips = settings, recipe.vocabulary, clips
        self.sides: dict[str, Procedure] = {}
        if settings.baseline:
            plain = clips.get("float32") or make_clip(settings, "float32")
            self.sides[BASELINE] = BaselineProcedure(plain, recipe, rows, oracle_of(settings))
        ours = {dtype: FastProcedure(clip, recipe, rows, settings.cam_precision) for dtype, clip in clips.items()}
        self.sides |= ours
        self.first = ours[settings.dtypes[0]]

    def count_tokens(self, photo: Photo) -> int:
        """Tokens of one photo, [CLS] included."""
        patch = self.first.clip.patch_size
        height, width = self.first.prepare([photo]).shape[-2:]
        return 1 + (height // patch) * (width // patch)

    def peaks(self, tokens: int) -> dict[str, float]:
        return {
            dtype: matmul_peak(tokens, clip.width, getattr(torch, clip.number_format), self.settings.device)
            for dtype, clip in self.clips.items()
        }

    def tagged(self, photo: Photo, count: int) -> Photo:
        trunk = self.first.trunk(self.first.prepare([photo]))
        with torch.no_grad():
            local, patches = self.first.tag_locally(trunk, Clock())
        return choose_tags(photo, local[0].cpu().numpy(), float(patches.min()), float(patches.max()), count)

    def case(self, photos: Sequence[Photo]) -> dict[str, Any]:
        """Outputs compared, arithmetic counted, then time: rounds over the photos, sides in turn batch by batch."""
        outcomes = {side: self._outcomes(side, photos) for side in self.sides}
        found: dict[str, Any] = {
            "tags": len(photos[0].labels),
            "crops": {side: float(np.mean([one.crops for one in ones])) for side, ones in outcomes.items()},
            "agreement": self._agreement(outcomes, photos),
            "sides": {side: {} for side in self.sides},
        }
        samples: dict[str, list[Counter]] = {side: [] for side in self.sides}
        for round_number in range(self.settings.repeats):
            for number, batch in enumerate(batches(photos, self.settings.batch)):
                names = list(self.sides)
                turn = (round_number + number) % len(names)
                for side in names[turn:] + names[:turn]:
                    clock = Clock(self.settings.device)
                    self.sides[side](batch, clock)
                    each = {stage: seconds / len(batch) for stage, seconds in clock.seconds.items()}
                    samples[side].append(Counter(each))
        for side, measured in samples.items():
            found["sides"][side] = self._summary(side, measured, self._flop(side, photos[0]))
        found["ratios"] = self._ratios(samples)
        if self.settings.crf:
            # No part of the comparison, so the reference preset does not insist on pydensecrf here.
            crf = replace(self.first.masks.crf, engine="auto")
            crf = replace(crf, engine=crf_engine(crf))
            found["crf_engine"] = crf.engine
            found["crf_core_seconds"] = self._crf(photos, outcomes[self.settings.dtypes[0]], crf)
        return found

    def with_shares(self, case: dict[str, Any], peaks: dict[str, float]) -> dict[str, Any]:
        """The case with shares of the peak; the baseline computes in float32."""
        for side, values in case["sides"].items():
            peak = peaks.get("float32" if side == BASELINE else side)
            if peak:
                values["share_of_peak"] = {part: rate / peak for part, rate in values["gflop_per_s"].items()}
        return case

    def _outcomes(self, side: str, photos: Sequence[Photo]) -> list[PhotoResult]:
        found: list[PhotoResult] = []
        for batch in batches(photos, self.settings.batch):
            found.extend(self.sides[side](batch, Clock(self.settings.device)))
        return found

    def _agreement(self, outcomes: dict[str, list[PhotoResult]], photos: Sequence[Photo]) -> dict[str, Any]:
        """Ours in the first dtype against the baseline, further dtypes against the first."""
        first = self.settings.dtypes[0]
        pairs = [(first, BASELINE)] if self.settings.baseline else []
        pairs += [(dtype, first) for dtype in self.settings.dtypes[1:]]
        labels, background = len(self.vocabulary) + 1, self.vocabulary.has_background
        rule = self.first.tagging.rule
        return {
            f"{one} / {other}": compare_results(outcomes[one], outcomes[other], photos, rule, labels, background)
            for one, other in pairs
        }

    def _summary(self, side: str, samples: Sequence[Counter], flop: Counter) -> dict[str, Any]:
        """Seconds, rates and GFLOP of a photo: of both stages, of stage one, of the trunk, and by stage."""
        parts = {"both stages": tuple(flop), "stage one": self.sides[side].stage_one}
        if "trunk" in flop:
            parts["trunk"] = ("trunk",)
        seconds = {part: median(sum(sample[s] for s in stages) for sample in samples) for part, stages in parts.items()}
        gflop = {part: sum(flop[s] for s in stages) / GIGA for part, stages in parts.items()}
        return {
            "images_per_s": {part: 1 / value for part, value in seconds.items()},
            "seconds": seconds,
            "gflop": gflop,
            "gflop_per_s": {part: gflop[part] / seconds[part] for part in parts},
            "stage_seconds": {stage: median(sample[stage] for sample in samples) for stage in flop},
            "stage_gflop": {stage: value / GIGA for stage, value in flop.items()},
        }

    def _ratios(self, samples: dict[str, list[Counter]]) -> dict[str, dict[str, float]]:
        """Speed of each side as a multiple of the first side's: medians over neighbouring pairs."""
        yardstick = next(iter(samples))

        def times(side: str, stages: Sequence[str] | None) -> list[float]:
            return [
                sample.total() if stages is None else sum(sample[stage] for stage in stages) for sample in samples[side]
            ]

        ratios = {}
        for side in list(samples)[1:]:
            found = {}
            for part, ours, theirs in (
                ("both stages", None, None),
                ("stage one", self.sides[side].stage_one, self.sides[yardstick].stage_one),
            ):
                pairs = zip(times(yardstick, theirs), times(side, ours), strict=True)
                found[part] = median(slow / fast for slow, fast in pairs)
            ratios[f"{side} / {yardstick}"] = found
        return ratios

    def _flop(self, side: str, photo: Photo) -> Counter[str]:
        """Operations of one photo by stage."""
        clock = FlopClock()
        self.sides[side]([photo], clock)
        return clock.flop

    def _crf(self, photos: Sequence[Photo], outcomes: Sequence[PhotoResult], crf: CrfConfig) -> float:
        """Seconds per photo of one core for upsampling, CRF and labels."""
        seconds, masks = [], replace(self.first.masks, crf=crf)
        torch.set_num_threads(1)
        for photo, outcome in zip(photos, outcomes, strict=True):
            rgb, clock = decode_image(photo.path), Clock()
            with clock("crf"):
                cams = outcome.refined / np.maximum(outcome.refined.max(axis=(1, 2), keepdims=True), 1e-7)
                mask_from_maps(rgb, cams, photo.labels, masks, has_background=self.vocabulary.has_background)
            seconds.append(clock.seconds["crf"])
        torch.set_num_threads(self.settings.threads)
        return median(seconds)


def _memory_of(side: str, settings: BenchmarkSettings, rows: ClassRows, photos: Sequence[Photo]) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure_memory, side, settings, rows, photos).result()


def measure_memory(
    side: str, settings: BenchmarkSettings, rows: ClassRows, photos: Sequence[Photo]
) -> dict[str, float]:
    """Memory of one side, MiB; to be called in a process of its own.

    Returns:
        "loaded": with the model, before the first photo, "peak": while working; "device": peak on an accelerator.
    """
    torch.set_num_threads(settings.threads)
    recipe = read_recipe(settings)
    clip = make_clip(settings, "float32" if side == BASELINE else side)
    if side == BASELINE:
        procedure: Procedure = BaselineProcedure(clip, recipe, rows, oracle_of(settings))
    else:
        procedure = FastProcedure(clip, recipe, rows, settings.cam_precision)
    memory = PeakMemory()
    for batch in batches(photos, settings.batch):
        procedure(batch, Clock(settings.device))
    found = {"loaded": memory.start, "peak": memory.peak}
    if clip.device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(clip.device) / MEBIBYTE
    return found

"""What a finished run holds and how long it took."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tagclip.vocabulary import Vocabulary
from wsss.files.run_folder import RunFolder
from wsss.pipeline.planning import Plan

STAGES = ("decode", "trunk", "tags", "cams", "write", "masks")


@dataclass
class StageTimes:
    """Seconds spent, and images done, by stage; `decode` and `masks` add up their parallel workers."""

    seconds: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    wall: float = 0.0

    def add(self, stage: str, seconds: float, images: int) -> None:
        """Counts images of a stage."""
        self.seconds[stage] += seconds
        self.images[stage] += images


def count_run(run: RunFolder, plan: Plan, vocabulary: Vocabulary, ignore_label: int) -> dict[str, Any]:
    """What a finished run holds, for its manifest and its summary; the same however often the run was cut.

    Returns:
        {"images", "masks", "failures", "untagged", "tags": {name: images}, "pixels": {label name: pixels},
        "ignored_share"}.
    """
    tags: Counter[str] = Counter()
    pixels: Counter[int] = Counter()
    untagged = masks = failures = 0
    for name in plan.order:
        if name in run.failures:
            failures += 1
            continue
        if name in run.tags:
            chosen = run.tags[name]["tags"]
            tags.update(chosen)
            untagged += not chosen
        if name in run.coverage:
            masks += 1
            pixels.update({int(label): count for label, count in run.coverage[name]["pixels"].items()})
    names = vocabulary.label_names
    total = sum(pixels.values())
    return {
        "images": len(plan.order),
        "masks": masks,
        "failures": failures,
        "untagged": untagged,
        "tags": {name: tags[name] for name in vocabulary.names if tags[name]},
        "pixels": {name: pixels[label] for label, name in enumerate(names) if pixels[label]},
        "ignored_share": round(pixels[ignore_label] / total, 6) if total else 0.0,
    }


def times_record(times: StageTimes, process: os.times_result, mask_workers: int) -> dict[str, Any]:
    """Seconds by stage, wall time, and core-seconds of this process and of its ended children.

    Args:
        process: of `os.times()`, after the workers have ended.
    """
    cpu = process.user + process.system + process.children_user + process.children_system
    return {
        "seconds": {name: round(times.seconds[name], 3) for name in STAGES if times.images[name]},
        "images": {name: times.images[name] for name in STAGES if times.images[name]},
        "wall": round(times.wall, 3),
        "core_seconds": round(cpu, 3),
        "mask_workers": mask_workers,
    }


def summary_text(counts: Mapping[str, Any], times: Mapping[str, Any] | None = None) -> str:
    """The closing lines of a run.

    Args:
        counts: of `count_run`.
        times: of `times_record`; None for a run that had nothing left to do.
    """
    answered = sum(counts["pixels"].values())
    lines = [
        f"{counts['images']} images: {counts['masks']} masks, {counts['failures']} failures, "
        f"{counts['untagged']} without tags; {100 * counts['ignored_share']:.1f} % of the pixels ignored"
    ]
    names = [name for name in ("background", *counts["tags"]) if name in counts["pixels"] or name in counts["tags"]]
    if names:
        width = max(len(name) for name in names)
        lines.append(f"{'class':<{width}}{'images':>9}{'of labelled pixels':>20}")
        for name in names:
            share = 100 * counts["pixels"].get(name, 0) / answered if answered else 0
            lines.append(f"{name:<{width}}{counts['tags'].get(name, '-'):>9}{share:>18.2f} %")
    if times is not None:
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times["seconds"].items())
        lines.append(f"time: {stages}")
        lines.append(f"wall {times['wall']:.1f} s, {times['core_seconds']:.1f} core-seconds with start-up")
    return "\n".join(lines)

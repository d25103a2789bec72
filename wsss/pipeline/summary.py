"""What a finished run holds and how long it took."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tagclip.config import TagRuleConfig
from tagclip.vocabulary import Vocabulary
from wsss.files.run_folder import RunFolder
from wsss.pipeline.planning import Plan

MOST_ROWS_OF_ZEROS = 30
STAGES = ("decode", "trunk", "tags", "cams", "write", "masks")


@dataclass
class StageTimes:
    """Seconds spent, and images done, by stage; `decode` and `masks` add up their parallel workers."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    images: Counter[str] = field(default_factory=Counter)
    wall: float = 0.0

    def add(self, stage: str, seconds: float, images: int) -> None:
        """Counts images of a stage."""
        self.seconds[stage] += seconds
        self.images[stage] += images


def count_run(run: RunFolder, plan: Plan, vocabulary: Vocabulary, ignore_label: int) -> dict[str, Any]:
    """What a finished run holds, for its manifest and its summary; the same however often the run was cut.

    Returns:
        {"images", "masks", "failures", "untagged", "tags": {name: images, 0 for classes that were never found},
        "pixels": {label name: pixels}, "ignored_share"}, and "rejected" where a person has rejected images, which then
        count nowhere else but in "images".
    """
    tags: Counter[str] = Counter()
    pixels: Counter[int] = Counter()
    untagged = masks = failures = 0
    rejected = run.rejected_ids(plan.order)
    for name in plan.order:
        if name in rejected:
            continue
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
        **({"rejected": len(rejected)} if rejected else {}),
        "masks": masks,
        "failures": failures,
        "untagged": untagged,
        "tags": {name: tags[name] for name in vocabulary.names},
        "pixels": {name: pixels[label] for label, name in enumerate(names) if pixels[label]},
        "ignored_share": round(pixels[ignore_label] / total, 6) if total else 0.0,
    }


def floor_hint(run: RunFolder, rule: TagRuleConfig, classes: int) -> str | None:
    """One line where no image of a finished run has a tag because every score lies below the rule's floor; else None.

    Args:
        run: open, with its `counts`.
        classes: how many there are.
    """
    floor = rule.floor_for(classes)
    if floor is None or not len(run.tags) or any(run.counts["tags"].values()):
        return None
    best = max((score for name in run.tags.ids() for score in _scores_of(run.tags[name])), default=None)
    if best is None or best > floor:
        return None
    return (
        f"no image has a tag: a tag needs a score above rule.floor, which is {floor:g} here, and the highest score is "
        f"{best:.3g}; --set tagging.rule.floor=F lowers it, --at-least-one gives every image its best class"
    )


def _scores_of(line: Mapping[str, Any]) -> Iterable[float]:
    scores = line.get("scores") or ()
    return scores.values() if isinstance(scores, Mapping) else scores


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
    lines = [counts_line(counts)]
    if rows := class_rows(counts):
        width = max(len("class"), *(len(name) for name, _, _ in rows))
        lines.append(f"{'class':<{width}}{'images':>9}{'of labelled pixels':>20}")
        lines += [f"{name:<{width}}{images:>9}{100 * share:>18.2f} %" for name, images, share in rows]
    return "\n".join([*lines, *never_found_line(counts), *times_lines(times)])


def counts_line(counts: Mapping[str, Any]) -> str:
    """Images, masks, failures, images without tags, and the share of ignored pixels."""
    rejected = f"{counts['rejected']} rejected, " if counts.get("rejected") else ""
    return (
        f"{counts['images']} images: {counts['masks']} masks, {rejected}{counts['failures']} failures, "
        f"{counts['untagged']} without tags; {100 * counts['ignored_share']:.1f} % of the pixels ignored"
    )


def class_rows(counts: Mapping[str, Any]) -> list[tuple[str, int | str, float]]:
    """(class, images with its tag, share of the labelled pixels), the background first.

    Classes that were never found have rows of zeros, unless they are more than `MOST_ROWS_OF_ZEROS`: see
    `never_found_line`.
    """
    tags, pixels = counts["tags"], counts["pixels"]
    labelled = max(1, sum(pixels.values()))
    hidden = set(_never_found(counts)) if _too_many(counts) else set()
    images = {"background": "-"} if "background" in pixels else {}
    images.update((name, number) for name, number in tags.items() if name not in hidden)
    return [(name, number, pixels.get(name, 0) / labelled) for name, number in images.items()]


def never_found_line(counts: Mapping[str, Any]) -> list[str]:
    """A line with the classes that were never found, where they are too many for the table; else nothing."""
    missing = _never_found(counts)
    if not _too_many(counts):
        return []
    return [f"never found, {len(missing)} of {len(counts['tags'])} classes: {', '.join(missing)}"]


def times_lines(times: Mapping[str, Any] | None) -> list[str]:
    """Seconds by stage and in all, of `times_record`; nothing for None."""
    if times is None:
        return []
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in times["seconds"].items())
    return [f"time: {stages}", f"wall {times['wall']:.1f} s, {times['core_seconds']:.1f} core-seconds with start-up"]


def _never_found(counts: Mapping[str, Any]) -> list[str]:
    return [name for name, images in counts["tags"].items() if not images and name not in counts["pixels"]]


def _too_many(counts: Mapping[str, Any]) -> bool:
    return len(_never_found(counts)) > MOST_ROWS_OF_ZEROS


def duration(seconds: float) -> str:
    """3700 -> "1 h 02 min"."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

"""What a finished run holds and how long it took."""

from __future__ import annotations

from collections import Counter

from tagclip.vocabulary import Vocabulary
from wsss.planning import Plan
from wsss.run import RunFolder


def run_counts(run: RunFolder, plan: Plan, vocabulary: Vocabulary, ignore_label: int) -> dict:
    """What a finished run holds, for its manifest and its summary; the same however often the run was cut.

    Returns:
        {"images", "masks", "failures", "untagged", "tags": {name: images}, "pixels": {label name: pixels},
        "ignored_share"}.
    """
    tags: Counter = Counter()
    pixels: Counter = Counter()
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
    names = ("background", *vocabulary.names) if vocabulary.has_background else vocabulary.names
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

"""Random inputs of the doubt, in the forms that Python and the page read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from wsss.review.doubt import DoubtInput, DoubtRule, DoubtWeights, doubt_settings, thresholds_in_force
from wsss.review.score_levels import UNKNOWN


def doubt_case(seed: int, count: int = 300, classes: int = 7) -> tuple[DoubtInput, DoubtRule]:
    """Images with ties, unknown scores, decisions, rivals; a relative rule in two of three cases."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, [60, 50_000][seed % 2], (count, classes)).astype(np.uint16)
    levels[rng.random(levels.shape) < 0.1] = UNKNOWN
    levels[rng.random(count) < 0.05] = UNKNOWN
    if seed % 5 == 0:
        levels[:, -1] = UNKNOWN
    handles = rng.integers(0, int(levels[levels != UNKNOWN].max()), classes)
    relative = None if seed % 3 == 0 else rng.choice([0.5, 0.35, 0.1], classes)
    rule = DoubtRule(handles, rng.random(classes) < 0.4, relative, bool(seed % 2), -1.0 if seed % 4 else 12.5)
    rivals = [rng.integers(0, classes, (int(rng.integers(0, 3)), 2)) for _ in range(count)]
    pairs = [[(int(a), int(b), int(rng.integers(0, 10_001))) for a, b in those] for those in rivals]
    images = DoubtInput(
        levels, np.zeros(levels.shape, bool), rng.random(levels.shape) < 0.1, rng.random(count) < 0.1,
        rng.integers(0, 10_001, count), pairs, zero=3 if seed % 2 else 0,
    )  # fmt: skip
    agreeing = (levels >= thresholds_in_force(images, rule)) & (levels != UNKNOWN)
    return replace(images, tags=agreeing ^ (rng.random(levels.shape) < 0.03)), rule


def as_page_input(images: DoubtInput, rule: DoubtRule) -> dict[str, Any]:
    """The same as JSON: tables class by class, as `doubt.js` reads them."""
    count, classes = images.levels.shape
    relative = rule.relative
    return {
        "images": count, "classes": classes, "unknown": UNKNOWN, "zero": images.zero,
        "levels": images.levels.T.ravel().tolist(), "tags": images.tags.T.ravel().astype(int).tolist(),
        "decided": images.decided.T.ravel().astype(int).tolist(), "settled": images.settled.astype(int).tolist(),
        "ignored": images.ignored.tolist(),
        "rivals": [[value for pair in pairs for value in pair] for pairs in images.rivals],
        "handles": rule.handles.tolist(), "moved": rule.moved.astype(int).tolist(),
        "relative": None if relative is None
        else {"t": relative.tolist(), "from_zero": rule.from_zero, "floor": rule.floor},
        "weights": dict(doubt_settings(DoubtWeights())),
    }  # fmt: skip


# Takes `input` as above; gives doubts and order.
PAGE_CODE = """(input) => {
  const d = { ...input, levels: Uint16Array.from(input.levels), tags: Uint8Array.from(input.tags) };
  Object.assign(d, Review.doubt.bounds(d.levels, d.images, d.classes, d.unknown));
  const values = Review.doubt.all(d, new Float64Array(d.images), new Float64Array(d.images), new Int32Array(d.images));
  const again = new Float64Array(d.images), best = new Float64Array(d.images), worst = new Int32Array(d.images);
  for (let i = 0; i < d.images; i++) Review.doubt.one(d, i, again, best, worst);
  const order = Review.doubt.order(values, Array.from({ length: d.images }, (_, i) => i));
  return { values: Array.from(values), order, again: Array.from(again) };
}"""

"""Pairs of predicted and true masks, streamed through a scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagclip.errors import ImageError
from wsss.evaluation.scorer import MaskScorer, PairCounts
from wsss.files.concurrency import bounded_map
from wsss.files.mask_files import read_mask


@dataclass(frozen=True)
class MaskPair:
    """One image to score: its id and where its two masks are."""

    id: str
    predicted: Path
    truth: Path


def score_pairs(
    pairs: Iterable[MaskPair],
    scorer: MaskScorer,
    *,
    read_prediction: Callable[[Path], np.ndarray] = read_mask,
    read_truth: Callable[[Path], np.ndarray] = read_mask,
    workers: int = 2,
    progress: Callable[[int], object] = lambda done: None,
) -> list[tuple[str, str]]:
    """Streams pairs through a scorer with a few reading threads; at most a few images are held at once.

    Returns:
        (id, message) of the pairs that could not be scored.
    """
    failures: list[tuple[str, str]] = []

    def measure(pair: MaskPair) -> PairCounts | str:
        try:
            return scorer.measure(read_prediction(pair.predicted), read_truth(pair.truth))
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as executor:
        for done, (pair, outcome) in enumerate(bounded_map(executor, measure, pairs, 2 * max(1, workers)), start=1):
            if isinstance(outcome, str):
                failures.append((pair.id, outcome if pair.id in outcome else f"{pair.id}: {outcome}"))
            else:
                scorer.add(outcome)
            progress(done)
    return failures

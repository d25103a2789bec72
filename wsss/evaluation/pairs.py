"""Pairs of predicted and true masks, streamed through a scorer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.errors import ImageError, UsageError
from tagclip.folders import nothing_found
from tagclip.stored_files import FilePlace
from wsss.evaluation.scorer import MaskScorer, PairCounts
from wsss.files.concurrency import bounded_map
from wsss.files.lists import read_ids
from wsss.files.mask_files import read_mask
from wsss.files.result_shards import results_by_id, results_there
from wsss.files.sources import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskPair:
    """One image to score: its id and where its two masks are."""

    id: str
    predicted: FilePlace
    truth: FilePlace


@dataclass(frozen=True)
class Pairing(Sequence[MaskPair]):
    """The pairs of two folders, in the order of their ids, and what is left over.

    Attributes:
        pairs: files with the same id.
        without_truth: ids of predictions without a true mask.
        without_prediction: ids of true masks without a prediction; a data set's other splits, as a rule.
    """

    pairs: tuple[MaskPair, ...]
    without_truth: tuple[str, ...] = ()
    without_prediction: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: Any) -> Any:
        return self.pairs[index]


def find_pairs(
    predicted: Path, truth: Path, suffix: str = ".png", id_list: Path | None = None, *, option: str = "--masks"
) -> Pairing:
    """Pairs of files with equal ids: relative paths without the suffix, whose case does not matter.

    Args:
        predicted: folder of masks, or of class maps with the suffix ".npz".
        truth: folder of true masks.
        id_list: ids (`tagclip.image_ids.read_ids`) that are to be scored, all of them: a file that is not there fails
            when it is read. Without it every prediction that has a true mask is taken, and the others are told.
        option: that named `predicted`, for messages.

    Raises:
        UsageError: a folder or list that does not exist, or nothing in common.
    """
    for name, folder in ((option, predicted), ("--ground-truth", truth)):
        if not results_there(folder):
            raise UsageError(f"{name} {folder}: no such folder")
    predictions, truths = results_by_id(predicted, suffix), results_by_id(truth, ".png")
    if not truths:
        raise UsageError(f"--ground-truth {truth}: {nothing_found(truth, '.png')}")
    if not predictions:
        raise UsageError(f"{option} {predicted}: {nothing_found(predicted, suffix)}")
    common = predictions.keys() & truths.keys()
    if not common:
        raise UsageError(
            f"{option} {predicted}: none of its {len(predictions)} names (first {next(iter(predictions))!r}) is among "
            f"the {len(truths)} in --ground-truth {truth} (first {next(iter(truths))!r})"
        )
    if id_list is not None:
        ids = read_ids(id_list, predictions.keys() | truths.keys(), "--list")
        return Pairing(tuple(
            MaskPair(i, predictions.get(i, predicted / f"{i}{suffix}"), truths.get(i, truth / f"{i}.png")) for i in ids
        ))  # fmt: skip
    pairs = tuple(MaskPair(i, path, truths[i]) for i, path in predictions.items() if i in common)
    without_truth = tuple(i for i in predictions if i not in common)
    if without_truth:
        logger.warning(
            "%s %s: %d of %d predictions have no true mask and are not scored: %s", option, predicted,
            len(without_truth), len(predictions), shown(without_truth),
        )  # fmt: skip
    return Pairing(pairs, without_truth, tuple(i for i in truths if i not in common))


def score_pairs(
    pairs: Iterable[MaskPair],
    scorer: MaskScorer,
    *,
    read_prediction: Callable[[FilePlace], np.ndarray] = read_mask,
    read_truth: Callable[[FilePlace], np.ndarray] = read_mask,
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

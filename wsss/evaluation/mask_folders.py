"""Folders of masks, or of class maps at a list of background scores, against folders of true masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tagclip.errors import ImageError, UsageError
from tagclip.stored_files import FilePlace
from tagclip.vocabulary import Vocabulary
from wsss.evaluation.pairs import MaskPair, score_pairs
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer, MaskScores
from wsss.files.map_files import read_maps
from wsss.files.mask_files import IGNORE_8_BIT, ignore_label, label_dtype, read_mask, with_ignored_value

Progress = Callable[[int], None]


@dataclass(frozen=True)
class FolderScores:
    """Scores of a folder, and a message for each pair that could not be scored."""

    scores: MaskScores
    failures: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**self.scores.to_dict(), "failures": self.failures}


@dataclass
class Sweep:
    """Scores of class maps by background score."""

    rows: list[tuple[float, MaskScores]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def best(self) -> tuple[float, MaskScores]:
        """The background score with the highest mIoU, and its scores."""
        return max(self.rows, key=lambda row: row[1].miou)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        rows = [{"threshold": threshold, **scores.to_dict()} for threshold, scores in self.rows]
        return {"best_threshold": self.best[0], "thresholds": rows, "failures": self.failures}


@dataclass(frozen=True)
class FolderScorer:
    """How folders are scored.

    Attributes:
        vocabulary: classes of both folders.
        config: of the scorer.
        coarse: merge classes into their coarse groups first.
        workers: reading threads.
        binary: true masks are 0 and 255, as tools for binary masks write them, and 255 is the vocabulary's one class.
            None: they are not, and true masks of nothing but 0 and 255 are refused; False: they are scored all the
            same, 255 being ignored.

    Raises:
        UsageError: `coarse` with a vocabulary that has no groups, `binary` with one of several classes.
    """

    vocabulary: Vocabulary
    config: MaskEvaluationConfig = field(default_factory=MaskEvaluationConfig)
    coarse: bool = False
    workers: int = 2
    binary: bool | None = None

    def __post_init__(self) -> None:
        if self.coarse and self.vocabulary.coarse is None:
            raise UsageError(f"--coarse: the vocabulary {self.vocabulary.name!r} has no coarse groups")
        if self.binary and (len(self.vocabulary) != 1 or not self.vocabulary.has_background):
            raise UsageError(
                f"--binary: masks of 0 and 255 show one class and a background, vocabulary {self.vocabulary.name!r} "
                f"has {len(self.vocabulary)} classes; name the one with --classes"
            )

    def masks(self, pairs: Sequence[MaskPair], progress: Progress = lambda done: None) -> FolderScores:
        """Scores of masks.

        Args:
            pairs: of `find_pairs`. progress: called with the number of pairs that were read.

        Raises:
            UsageError: ids beyond the vocabulary's classes, or true masks that mean something else (`check_truth`).
        """
        return self._score(pairs, self.config, self._grouped(self._read), progress)

    def maps(
        self, pairs: Sequence[MaskPair], thresholds: Sequence[float], progress: Progress = lambda done: None
    ) -> Sweep:
        """Scores of class maps with constant background scores.

        The boundary of a thresholded map says little and would dominate the time, so that it is not scored.

        Args:
            thresholds: background scores. progress: called with the number of pairs that were read, over all of them.

        Raises:
            UsageError: no file could be scored.
        """
        config, sweep = replace(self.config, boundary_width=0.0), Sweep()
        for round_, threshold in enumerate(thresholds):

            def label(path: FilePlace, threshold: float = threshold) -> np.ndarray:
                return map_labels(
                    path, threshold, background=self.vocabulary.has_background, labels=self.vocabulary.label_count
                )

            def report(done: int, before: int = round_ * len(pairs)) -> None:
                progress(before + done)

            found = self._score(pairs, config, self._grouped(label), report)
            sweep.rows.append((threshold, found.scores))
            sweep.failures = found.failures
        if all(np.isnan(scores.miou) for _, scores in sweep.rows):
            first = sweep.failures[0] if sweep.failures else "none"
            raise UsageError(f"no class maps could be scored, first: {first}")
        return sweep

    def _score(
        self,
        pairs: Sequence[MaskPair],
        config: MaskEvaluationConfig,
        read_prediction: Callable[[FilePlace], np.ndarray],
        progress: Progress,
    ) -> FolderScores:
        scorer = MaskScorer(config)
        failures = score_pairs(
            pairs, scorer, read_prediction=read_prediction, read_truth=self._grouped(self._truth),
            workers=self.workers, progress=progress,
        )  # fmt: skip
        if self.binary is None:
            scorer.check_truth("name the one class with --classes and add --binary")
        return FolderScores(scorer.scores(self._names()), [message for _, message in failures])

    def _read(self, path: FilePlace) -> np.ndarray:
        return with_ignored_value(read_mask(path), self.config.ignore_index)

    def _truth(self, path: FilePlace) -> np.ndarray:
        mask = self._read(path)
        return np.where(mask == IGNORE_8_BIT, 1, mask) if self.binary else mask

    def _grouped(self, read: Callable[[FilePlace], np.ndarray]) -> Callable[[FilePlace], np.ndarray]:
        if not self.coarse:
            return read
        table = coarse_table(self.vocabulary)

        def grouped(path: FilePlace) -> np.ndarray:
            mask = read(path)
            if mask.size and mask.max() >= len(table):
                raise ImageError(f"{path}: id {mask.max()} is no class of vocabulary {self.vocabulary.name!r}")
            return table[mask]

        return grouped

    def _names(self) -> list[str]:
        """Names by mask id: background first if the vocabulary has one; numbers of groups if `coarse`."""
        groups = sorted(set(self.vocabulary.coarse or ()))
        names = [f"group {group}" for group in groups] if self.coarse else list(self.vocabulary.names)
        return ["background", *names] if self.vocabulary.has_background else names


def coarse_table(vocabulary: Vocabulary) -> np.ndarray:
    """Table from mask id to coarse group, (256,) uint8 or (65536,) uint16; ids that are no class keep their value."""
    dtype = label_dtype(vocabulary.label_count)
    table = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    offset = 1 if vocabulary.has_background else 0
    for index, group in enumerate(vocabulary.coarse or ()):
        table[index + offset] = group + offset
    return table


def map_labels(path: FilePlace, threshold: float, *, background: bool, labels: int = IGNORE_8_BIT) -> np.ndarray:
    """Label map of stored class maps with a constant background score.

    Args:
        threshold: pixels whose strongest map is below it are background (ignored if there is no background).
        background: whether class c is label c + 1.
        labels: of the vocabulary, see `label_dtype`.

    Returns:
        (H, W) uint8 or uint16.
    """
    stored = read_maps(path)
    height, width = stored.size
    below = 0 if background else ignore_label(labels)
    best = np.full((height, width), threshold, np.float32)
    winners = np.full((height, width), below, label_dtype(labels))
    for one, index in zip(stored.maps, stored.classes.tolist(), strict=True):
        one = cv2.resize(one.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        above = one > best
        winners[above] = index + (1 if background else 0)
        best[above] = one[above]
    return winners


def save_confusion(scores: MaskScores, path: Path) -> None:
    """Row-normalised confusion matrix (of the classes that occur in the true masks) as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    present = [i for i, row in enumerate(scores.confusion) if row.sum()]
    columns = [*present, *([-1] if scores.confusion[:, -1].sum() else [])]
    shares = scores.confusion[present] / scores.confusion[present].sum(1, keepdims=True)
    shares = shares[:, columns]
    side = min(24.0, 2.5 + 0.32 * len(columns))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    labels = [scores.names[i] for i in present]
    axes.set_xticks(range(len(columns)), labels + ["unlabelled"] * (len(columns) - len(present)), rotation=90)
    axes.set_yticks(range(len(present)), labels)
    axes.tick_params(labelsize=8 if len(columns) < 60 else 4)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"share of each class's pixels, mIoU {100 * scores.miou:.1f}")
    figure.colorbar(image, ax=axes, shrink=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)

"""Masks against ground truth: mIoU, per-class IoU, pixel accuracy and boundary IoU, streamed image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from tagclip.arguments import as_names
from tagclip.errors import ImageError, UsageError
from wsss.files.mask_files import IDS


@dataclass(frozen=True)
class MaskEvaluationConfig:
    """How masks are scored.

    Attributes:
        ignore_index: ground-truth value left out of every count; in a prediction it means "no answer".
        boundary_width: width of the boundary band as a share of the image diagonal (Cheng et al. 2021, "Boundary
            IoU", section 4: 2 %); 0 turns boundary IoU off.
        resize: bring a prediction of another size to the ground truth's (nearest) instead of failing.
    """

    ignore_index: int = 255
    boundary_width: float = 0.02
    resize: bool = False


def boundary_band(member: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a region that lie within `width` pixels (chessboard distance) of its outline.

    Args:
        member: (H, W) bool, True inside the region. The image border counts as outline.
        width: band width in pixels, at least 1.

    Returns:
        (H, W) bool.
    """
    region = np.pad(member, 1).astype(np.uint8)
    # A square kernel of side 2w+1 equals w erosions with a 3 x 3 one; the padding makes the border an outline.
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    core = cv2.erode(region, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)[1:-1, 1:-1]
    return member & (core == 0)


@dataclass
class MaskScorer:
    """Counts that grow with the images seen; memory does not.

    Attributes:
        counts: (256, 256) int64, ground-truth id by predicted id, ground truth's ignored pixels left out.
        boundary: (256, 2) int64, pixels in the intersection and the union of both boundary bands, by id.
        images: how many pairs were counted.
    """

    config: MaskEvaluationConfig = field(default_factory=MaskEvaluationConfig)
    counts: np.ndarray = field(default_factory=lambda: np.zeros((IDS, IDS), np.int64))
    boundary: np.ndarray = field(default_factory=lambda: np.zeros((IDS, 2), np.int64))
    images: int = 0

    def measure(self, predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts of one pair, not yet added; safe to call from several threads.

        Args:
            predicted: (H, W) uint8.
            truth: (H, W) uint8.

        Raises:
            ImageError: the sizes differ and `resize` is off.
        """
        if predicted.shape != truth.shape:
            if not self.config.resize:
                raise ImageError(
                    f"mask of {predicted.shape[1]}x{predicted.shape[0]} pixels, ground truth of "
                    f"{truth.shape[1]}x{truth.shape[0]}; --resize brings it to the ground truth's size"
                )
            predicted = cv2.resize(predicted, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        valid = truth != self.config.ignore_index
        pairs = truth[valid].astype(np.int64) * IDS + predicted[valid]
        counts = np.bincount(pairs, minlength=IDS * IDS).reshape(IDS, IDS)
        return counts, self._boundary(predicted, truth, valid)

    def _boundary(self, predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
        result = np.zeros((IDS, 2), np.int64)
        if self.config.boundary_width <= 0:
            return result
        width = max(1, round(self.config.boundary_width * float(np.hypot(*truth.shape))))
        present = set(np.unique(truth[valid]).tolist()) | set(np.unique(predicted[valid]).tolist())
        for label in present - {self.config.ignore_index}:
            # Void is outside for both, so that VOC's void rim does not shift one outline against the other.
            true_band = boundary_band((truth == label) & valid, width)
            predicted_band = boundary_band((predicted == label) & valid, width)
            result[label] = (true_band & predicted_band).sum(), (true_band | predicted_band).sum()
        return result

    def add(self, counts: np.ndarray, boundary: np.ndarray) -> None:
        """Adds what `measure` returned."""
        self.counts += counts
        self.boundary += boundary
        self.images += 1

    def update(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """`measure`, then `add`."""
        self.add(*self.measure(predicted, truth))

    def scores(self, names: Sequence[str]) -> MaskScores:
        """Scores of everything seen so far.

        Args:
            names: class names by id; ids beyond them must not occur, the ignore index apart.

        Raises:
            UsageError: an id without a name.
        """
        names = as_names(names, "names")
        classes = len(names)
        self._check_ids(classes)
        confusion = self.counts[:classes, :classes]
        unanswered = self.counts[:classes, self.config.ignore_index]
        true_positive = confusion.diagonal()
        predicted, truth = confusion.sum(0), confusion.sum(1)
        strict_union = truth + unanswered + predicted - true_positive
        answered_union = truth + predicted - true_positive
        total = int(confusion.sum() + unanswered.sum())
        iou = _ratio(true_positive, strict_union)
        return MaskScores(
            names=tuple(names),
            images=self.images,
            iou=iou,
            iou_answered=_ratio(true_positive, answered_union),
            boundary_iou=_ratio(self.boundary[:classes, 0], self.boundary[:classes, 1])
            if self.config.boundary_width > 0
            else None,
            precision=_ratio(true_positive, predicted),
            recall=_ratio(true_positive, truth + unanswered),
            pixel_accuracy=float(true_positive.sum() / total) if total else float("nan"),
            ignored_share=float(unanswered.sum() / total) if total else 0.0,
            confusion=np.concatenate([confusion, unanswered[:, None]], axis=1),
        )

    def _check_ids(self, classes: int) -> None:
        for what, seen in (("ground truth", self.counts.sum(1)), ("predictions", self.counts.sum(0))):
            foreign = [i for i in np.flatnonzero(seen).tolist() if i >= classes and i != self.config.ignore_index]
            if foreign:
                raise UsageError(
                    f"the {what} hold id {foreign[0]}, but there are {classes} classes (0 to {classes - 1}); "
                    "is it the right --vocabulary?"
                )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0 (a class that occurs nowhere has no score)."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray | None) -> float:
    if values is None or np.isnan(values).all():
        return float("nan")
    return float(np.nanmean(values))


@dataclass(frozen=True)
class MaskScores:
    """Scores of a set of masks; arrays are (C,) float64 in [0, 1], NaN for classes that occur nowhere.

    `iou` counts an unanswered pixel (ignore index in the prediction) as missed, so that leaving out what is hard never
    raises it; `iou_answered` leaves such pixels out. `confusion` is (C, C+1), ground truth by prediction, the last
    column the unanswered pixels.
    """

    names: tuple[str, ...]
    images: int
    iou: np.ndarray
    iou_answered: np.ndarray
    boundary_iou: np.ndarray | None
    precision: np.ndarray
    recall: np.ndarray
    pixel_accuracy: float
    ignored_share: float
    confusion: np.ndarray

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur."""
        return _mean(self.iou)

    def to_dict(self) -> dict:
        """JSON-ready; NaN becomes None."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else round(float(value), 6)

        columns = {"iou": self.iou, "iou_answered": self.iou_answered, "precision": self.precision,
                   "recall": self.recall}
        if self.boundary_iou is not None:
            columns["boundary_iou"] = self.boundary_iou
        return {
            "images": self.images,
            "miou": number(self.miou),
            "miou_answered": number(_mean(self.iou_answered)),
            "mean_boundary_iou": number(_mean(self.boundary_iou)),
            "mean_accuracy": number(_mean(self.recall)),
            "pixel_accuracy": number(self.pixel_accuracy),
            "ignored_share": number(self.ignored_share),
            "classes": {
                name: {key: number(values[i]) for key, values in columns.items()} for i, name in enumerate(self.names)
            },
            "confusion": self.confusion.tolist(),
        }

    def table(self) -> str:
        """Per-class table in per cent, classes that occur nowhere left out, totals below."""

        def cell(value: float) -> str:
            return f"{'-':>9}" if np.isnan(value) else f"{100 * value:9.2f}"

        width = max(12, *(len(name) for name in self.names))
        lines = [f"{'class':<{width}}{'IoU':>9}{'prec':>9}{'recall':>9}{'bound.IoU':>10}"]
        for i, name in enumerate(self.names):
            if np.isnan(self.iou[i]):
                continue
            boundary = self.boundary_iou[i] if self.boundary_iou is not None else float("nan")
            row = cell(self.iou[i]) + cell(self.precision[i]) + cell(self.recall[i]) + " " + cell(boundary)
            lines.append(f"{name:<{width}}{row}")
        lines.append(
            f"{'mean':<{width}}{cell(self.miou)}{cell(_mean(self.precision))}{cell(_mean(self.recall))} "
            f"{cell(_mean(self.boundary_iou))}"
        )
        lines.append(f"{self.images} images, pixel accuracy {100 * self.pixel_accuracy:.2f}")
        if self.ignored_share:
            lines.append(
                f"{100 * self.ignored_share:.2f} % of the pixels unanswered (255), counted as missed; without them "
                f"mIoU {100 * _mean(self.iou_answered):.2f}"
            )
        return "\n".join(lines)

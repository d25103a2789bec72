"""Masks against ground truth: mIoU, per-class IoU, pixel accuracy and boundary IoU, streamed image by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from tagclip.arguments import as_names
from tagclip.errors import ImageError, UsageError
from tagclip.images import Size
from wsss.evaluation.mask_checks import WRITE_ONE, set_problem, turned
from wsss.files.mask_files import IGNORE_8_BIT, ignore_label, with_ignored_value

LARGEST_TABLE = 256  # labels up to which a report holds the whole confusion matrix; beyond, what is not 0


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


@dataclass(frozen=True)
class PairCounts:
    """What one pair of masks adds to the counts of a `MaskScorer`, whose attributes these are."""

    counts: dict[tuple[int, int], int]
    ignored: int = 0
    intersection: dict[int, int] = field(default_factory=dict)
    union: dict[int, int] = field(default_factory=dict)


@dataclass
class MaskScorer:
    """Counts that grow with the images seen; memory does not.

    Attributes:
        counts: pixels by (ground-truth id, predicted id), ground truth's ignored pixels left out.
        ignored: how many those were.
        intersection, union: pixels of both boundary bands, by id.
        images: how many pairs were counted.
    """

    config: MaskEvaluationConfig = field(default_factory=MaskEvaluationConfig)
    counts: Counter[tuple[int, int]] = field(default_factory=Counter)
    ignored: int = 0
    intersection: Counter[int] = field(default_factory=Counter)
    union: Counter[int] = field(default_factory=Counter)
    images: int = 0

    def measure(self, predicted: np.ndarray, truth: np.ndarray) -> PairCounts:
        """Counts of one pair, not yet added; safe to call from several threads.

        Args:
            predicted: (H, W), unsigned integers of 8 or 16 bits.
            truth: (H, W), likewise.

        Raises:
            ImageError: the sizes differ and `resize` is off, one of them is the other turned, or an 8-bit mask where 16
                bits are needed to tell class 255 from ignored pixels.
        """
        predicted, truth = (with_ignored_value(mask, self.config.ignore_index) for mask in (predicted, truth))
        for what, mask in (("the mask", predicted), ("the ground truth", truth)):
            if mask.dtype == np.uint8 and self.config.ignore_index > IGNORE_8_BIT and (mask == IGNORE_8_BIT).any():
                raise ImageError(
                    f"{what} has 8 bits and the value 255, which is a class here, {self.config.ignore_index} being "
                    "ignored; save it as a 16-bit PNG"
                )
        if predicted.shape != truth.shape:
            sizes = (
                f"mask of {predicted.shape[1]}x{predicted.shape[0]} pixels, ground truth of "
                f"{truth.shape[1]}x{truth.shape[0]}"
            )
            if turned(Size(*predicted.shape), Size(*truth.shape)):
                raise ImageError(
                    f"{sizes}: one is the other turned, as when the true mask was drawn on the photo as it is stored "
                    "and not as its EXIF orientation shows it; turn it (resizing would squeeze it)"
                )
            if not self.config.resize:
                raise ImageError(f"{sizes}; --resize brings it to the ground truth's size")
            predicted = cv2.resize(predicted, truth.shape[::-1], interpolation=cv2.INTER_NEAREST)
        valid = truth != self.config.ignore_index
        counts = _count_pairs(truth[valid], predicted[valid])
        found = PairCounts(counts, int(valid.size - valid.sum()))
        if self.config.boundary_width > 0:
            width = max(1, round(self.config.boundary_width * float(np.hypot(*truth.shape))))
            for label in {label for pair in counts for label in pair} - {self.config.ignore_index}:
                # Void is outside for both, so that VOC's void rim does not shift one outline against the other.
                true_band = boundary_band((truth == label) & valid, width)
                predicted_band = boundary_band((predicted == label) & valid, width)
                found.intersection[label] = int((true_band & predicted_band).sum())
                found.union[label] = int((true_band | predicted_band).sum())
        return found

    def add(self, found: PairCounts) -> None:
        """Adds what `measure` returned."""
        self.counts.update(found.counts)
        self.ignored += found.ignored
        self.intersection.update(found.intersection)
        self.union.update(found.union)
        self.images += 1

    def update(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """`measure`, then `add`."""
        self.add(self.measure(predicted, truth))

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
        true_positive, predicted, truth, unanswered = np.zeros((4, classes), np.int64)
        confusion = {}
        for (true_id, predicted_id), pixels in self.counts.items():
            answered = predicted_id != self.config.ignore_index
            confusion[true_id, predicted_id if answered else classes] = pixels
            if not answered:
                unanswered[true_id] += pixels
                continue
            truth[true_id] += pixels
            predicted[predicted_id] += pixels
            if true_id == predicted_id:
                true_positive[true_id] += pixels
        strict_union = truth + unanswered + predicted - true_positive
        answered_union = truth + predicted - true_positive
        total = int(truth.sum() + unanswered.sum())
        iou = _ratio(true_positive, strict_union)
        return MaskScores(
            names=tuple(names),
            images=self.images,
            iou=iou,
            iou_answered=_ratio(true_positive, answered_union),
            boundary_iou=_ratio(_by_id(self.intersection, classes), _by_id(self.union, classes))
            if self.config.boundary_width > 0
            else None,
            precision=_ratio(true_positive, predicted),
            recall=_ratio(true_positive, truth + unanswered),
            pixel_accuracy=float(true_positive.sum() / total) if total else float("nan"),
            ignored_share=float(unanswered.sum() / total) if total else 0.0,
            pairs=confusion,
        )

    def check_truth(self, remedy: str = WRITE_ONE) -> None:
        """Refuses true masks that are right one by one and mean something else together; see `set_problem`.

        Args:
            remedy: for binary masks.

        Raises:
            UsageError: nothing but ignored pixels, or the 0 and 255 of binary masks.
        """
        pixels = Counter({self.config.ignore_index: self.ignored})
        for (label, _), count in self.counts.items():
            pixels[label] += count
        problem = set_problem(pixels, self.config.ignore_index, remedy) if self.images else None
        if problem:
            raise UsageError(f"the true masks {problem}")

    def _check_ids(self, classes: int) -> None:
        for side, what in enumerate(("ground truth", "predictions")):
            seen = sorted({pair[side] for pair in self.counts})
            foreign = [label for label in seen if label >= classes and label != self.config.ignore_index]
            if foreign:
                raise UsageError(
                    f"the {what} hold id {foreign[0]}, but there are {classes} classes (0 to {classes - 1}); "
                    "are these the right --classes?"
                )


def _count_pairs(truth: np.ndarray, predicted: np.ndarray) -> dict[tuple[int, int], int]:
    """Pixels by (true id, predicted id) of two (N,) arrays; work and memory follow the ids that occur."""
    true_ids, true_places = _present(truth)
    predicted_ids, predicted_places = _present(predicted)
    shape = (len(true_ids), len(predicted_ids))
    counts = np.bincount(true_places * shape[1] + predicted_places, minlength=shape[0] * shape[1]).reshape(shape)
    return {
        (true_ids[row], predicted_ids[column]): int(counts[row, column])
        for row, column in zip(*(places.tolist() for places in counts.nonzero()), strict=True)
    }


def _present(labels: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The ids that occur in (N,) labels, ascending, and the place of each label among them, (N,) int64."""
    there = np.bincount(labels) > 0
    return np.flatnonzero(there).tolist(), (there.cumsum() - 1)[labels]


def _by_id(counts: Mapping[int, int], classes: int) -> np.ndarray:
    return np.array([counts.get(label, 0) for label in range(classes)], np.int64)


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
    raises it; `iou_answered` leaves such pixels out. `pairs` are the pixels by (true class, predicted class), without
    zeros; C stands for an unanswered pixel.
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
    pairs: Mapping[tuple[int, int], int]

    @property
    def confusion(self) -> np.ndarray:
        """(C, C + 1) int64, ground truth by prediction, the last column the unanswered pixels."""
        matrix = np.zeros((len(self.names), len(self.names) + 1), np.int64)
        for place, pixels in self.pairs.items():
            matrix[place] = pixels
        return matrix

    @property
    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the pixels that are each class and that are called it, both (C,) float64, NaN without any pixel."""
        matrix = self.confusion
        total = matrix.sum() or np.nan
        return matrix.sum(axis=1) / total, matrix[:, :-1].sum(axis=0) / total

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that occur."""
        return _mean(self.iou)

    def to_dict(self) -> dict:
        """JSON-ready; NaN becomes None.

        "confusion" is the whole matrix; of more than 256 labels None, and "confusion_pairs" holds lists of true class,
        predicted class, pixels.
        """

        def number(value: float) -> float | None:
            return None if np.isnan(value) else round(float(value), 6)

        columns = {"iou": self.iou, "iou_answered": self.iou_answered, "precision": self.precision,
                   "recall": self.recall}
        if self.boundary_iou is not None:
            columns["boundary_iou"] = self.boundary_iou
        few = len(self.names) <= LARGEST_TABLE
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
            "confusion": self.confusion.tolist() if few else None,
            **({} if few else {"confusion_pairs": [[*pair, pixels] for pair, pixels in sorted(self.pairs.items())]}),
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
            value = ignore_label(len(self.names))
            lines.append(
                f"{100 * self.ignored_share:.2f} % of the pixels ignored ({value}), counted as missed; without them "
                f"mIoU {100 * _mean(self.iou_answered):.2f}"
            )
        return "\n".join(lines)

"""Patch logits -> full-size label maps, in row chunks: the (names, H, W) array of a large image never exists.

A *field* stands for the logits of Q names at every pixel of an image and can give any band of rows. Interpolation is
bilinear with align_corners=False, equal to `torch.nn.functional.interpolate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class LogitField(Protocol):
    """Logits of Q names on height x width pixels."""

    count: int
    height: int
    width: int

    @property
    def device(self) -> torch.device:
        """Where the logits are."""

    def rows(self, first: int, last: int, names: slice = slice(None)) -> Tensor:
        """Rows first..last-1: (Q, last - first, width) fp32."""


def _source_rows(first: int, last: int, size: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For target rows first..last-1: the two source rows they lie between and the share of the lower one."""
    position = ((torch.arange(first, last, device=device, dtype=torch.float32) + 0.5) * (size / target) - 0.5).clamp(0)
    upper = position.long().clamp(max=size - 1)
    return upper, (upper + 1).clamp(max=size - 1), position - upper


def _stretch(values: Tensor, upper: Tensor, lower: Tensor, share: Tensor, width: int) -> Tensor:
    """Vertical interpolation by index, then horizontal to `width`: (Q, h, w) -> (Q, rows, width)."""
    share = share[:, None]
    band = values[:, upper] * (1 - share) + values[:, lower] * share
    if band.shape[-1] == width:
        return band
    return F.interpolate(band[None], size=(band.shape[1], width), mode="bilinear", align_corners=False)[0]


class PatchField:
    """Logits on a patch grid, (Q, h, w) fp32, stretched to height x width pixels."""

    def __init__(self, logits: Tensor, height: int, width: int):
        self.logits, self.height, self.width = logits, height, width
        self.count = logits.shape[0]

    @property
    def device(self) -> torch.device:
        """See `LogitField.device`."""
        return self.logits.device

    def rows(self, first: int, last: int, names: slice = slice(None)) -> Tensor:
        """See `LogitField.rows`."""
        where = _source_rows(first, last, self.logits.shape[1], self.height, self.logits.device)
        return _stretch(self.logits[names], *where, self.width)


@dataclass(frozen=True)
class WordMaps:
    """Cosines between the patches of one model input and the words that compete.

    Attributes:
        cosines: (Q, h, w) fp32 on the patch grid.
        rows: unit-norm text rows of the words, (Q, D).
        labels: mask label of every word, (Q,) int64; the words of a label stand together.
        height, width: pixels of the input.
    """

    cosines: Tensor
    rows: Tensor
    labels: Tensor
    height: int
    width: int


@dataclass(frozen=True)
class Window:
    """A rectangle [top, bottom) x [left, right) of pixels."""

    top: int
    left: int
    bottom: int
    right: int


class WindowField:
    """Mean of the logits of overlapping windows; between computing and reading, each is kept on its patch grid.

    Args:
        windows: rectangles that cover the image.
        parts: a field for each.
    """

    def __init__(self, windows: Sequence[Window], parts: Sequence[LogitField], height: int, width: int):
        self.windows, self.parts, self.height, self.width = list(windows), list(parts), height, width
        self.count = self.parts[0].count

    @property
    def device(self) -> torch.device:
        """See `LogitField.device`."""
        return self.parts[0].device

    def rows(self, first: int, last: int, names: slice = slice(None)) -> Tensor:
        """See `LogitField.rows`."""
        device = self.parts[0].device
        kept = len(range(self.count)[names])
        total = torch.zeros(kept, last - first, self.width, device=device)
        seen = torch.zeros(last - first, self.width, device=device)
        for window, part in zip(self.windows, self.parts, strict=True):
            top, bottom = max(first, window.top), min(last, window.bottom)
            if top < bottom:
                band, columns = slice(top - first, bottom - first), slice(window.left, window.right)
                total[:, band, columns] += part.rows(top - window.top, bottom - window.top, names)
                seen[band, columns] += 1
        return total.div_(seen)


class ResizedField:
    """Another field brought to height x width pixels."""

    def __init__(self, field: LogitField, height: int, width: int):
        self.field, self.height, self.width = field, height, width
        self.count = field.count

    @property
    def device(self) -> torch.device:
        """See `LogitField.device`."""
        return self.field.device

    def rows(self, first: int, last: int, names: slice = slice(None)) -> Tensor:
        """See `LogitField.rows`."""
        upper, lower, share = _source_rows(first, last, self.field.height, self.height, torch.device("cpu"))
        start = int(upper[0])
        values = self.field.rows(start, int(lower[-1]) + 1, names)
        device = values.device
        return _stretch(
            values, (upper - start).to(device), (lower - start).to(device), share.to(device), self.width
        )


def windows_of(height: int, width: int, crop: int, stride: int) -> list[Window]:
    """Windows of a sliding crop, row by row; the last ones are moved back inside, so that all have the same size."""

    def starts(size: int) -> list[int]:
        steps = max(size - crop + stride - 1, 0) // stride + 1
        return [max(min(index * stride + crop, size) - crop, 0) for index in range(steps)]

    return [
        Window(top, left, min(top + crop, height), min(left + crop, width))
        for top in starts(height)
        for left in starts(width)
    ]


def row_chunks(field: LogitField, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Row ranges whose fp32 logits take about `chunk_bytes`."""
    step = max(1, chunk_bytes // (field.count * field.width * 4))
    for first in range(0, field.height, step):
        yield first, min(first + step, field.height)


@dataclass
class DenseLabels:
    """Labels of an image.

    Attributes:
        labels: (H, W) int64, values of `name_labels`.
        confidence: probability of the winning class, softmax over all names; (H, W) fp32 in [0, 1].
    """

    labels: Tensor
    confidence: Tensor


def argmax_labels(
    field: LogitField,
    name_labels: Tensor,
    *,
    logit_scale: float,
    chunk_bytes: int,
    left_out: Sequence[int] = (),
) -> DenseLabels:
    """Per-pixel argmax over names, read as labels; a class with several names counts with its best one.

    Args:
        field: cosines between pixels and Q names.
        name_labels: label of every name, (Q,) int64, on the field's device.
        logit_scale: factor of the cosines before the softmax.
        chunk_bytes: memory that the logits of one band of rows may take.
        left_out: labels whose probability counts as 0; the others' stay as they are.
    """
    barred = torch.isin(name_labels, torch.tensor(left_out, device=name_labels.device)) if left_out else None
    labels = torch.empty(field.height, field.width, dtype=torch.int64, device=name_labels.device)
    confidence = torch.empty(field.height, field.width, device=name_labels.device)
    for first, last in row_chunks(field, chunk_bytes):
        logits = field.rows(first, last).mul_(logit_scale)
        normaliser = logits.logsumexp(dim=0)
        if barred is not None:
            logits[barred] = -torch.inf
        best, name = logits.max(dim=0)
        labels[first:last] = name_labels[name]
        confidence[first:last] = (best - normaliser).exp_()
    return DenseLabels(labels, confidence)


def small_labels(labels: Tensor, share: float) -> list[int]:
    """Foreground labels (1 and above) that cover at most this share of all foreground pixels of a label map."""
    found, areas = labels[labels > 0].unique(return_counts=True)
    return found[areas <= share * areas.sum()].tolist()


def log_normaliser(field: LogitField, *, logit_scale: float, chunk_bytes: int) -> Tensor:
    """logsumexp of the scaled logits over all names, (H, W) fp32."""
    parts = [
        field.rows(first, last).mul_(logit_scale).logsumexp(dim=0) for first, last in row_chunks(field, chunk_bytes)
    ]
    return torch.cat(parts)


def class_probabilities(
    field: LogitField, name_labels: Tensor, label: int, normaliser: Tensor, *, logit_scale: float
) -> Tensor:
    """Probability of one label at every pixel, the maximum over its names: (H, W) fp32.

    Args:
        name_labels: label of every name, (Q,); the names of a label stand together.
        normaliser: from `log_normaliser`.
    """
    at = (name_labels == label).nonzero().flatten().tolist()
    best = field.rows(0, field.height, slice(at[0], at[-1] + 1)).amax(dim=0)
    return best.mul_(logit_scale).sub_(normaliser).exp_()

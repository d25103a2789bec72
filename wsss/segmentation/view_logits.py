"""Logits of a photo as a segmentor sees it, kept at the head's resolution and brought to the photo's a few at a time.

A thousand labels at every pixel of a photo of two megapixels would be eight gigabytes; the head's own logits are an
eighth of the photo's sides and a 64th of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

Labels = slice | Tensor


@dataclass(frozen=True)
class LogitWindow:
    """Where a window lies in the view, in pixels, and its logits, (labels, h, w) at the head's resolution."""

    top: int
    left: int
    height: int
    width: int
    logits: Tensor


@dataclass(frozen=True)
class ViewLogits:
    """Logits of one view of a photo.

    Attributes:
        windows: that cover it.
        size: (height, width) of the view.
        mirrored: the view shows the photo mirrored.
        align_corners: how the model interpolates.
    """

    windows: Sequence[LogitWindow]
    size: tuple[int, int]
    mirrored: bool
    align_corners: bool

    def at(self, size: tuple[int, int], labels: Labels) -> Tensor:
        """Logits of some labels at the size of the photo, (len(labels), height, width)."""
        whole = self.windows[0]
        if len(self.windows) == 1 and (whole.height, whole.width) == self.size:
            logits = self._resized(whole.logits[labels], self.size)
        else:
            logits = whole.logits.new_zeros(len(whole.logits[labels]), *self.size)
            seen = whole.logits.new_zeros(self.size)
            for one in self.windows:
                rows, columns = slice(one.top, one.top + one.height), slice(one.left, one.left + one.width)
                logits[:, rows, columns] += self._resized(one.logits[labels], (one.height, one.width))
                seen[rows, columns] += 1
            logits /= seen
        return self._resized(logits.flip(-1) if self.mirrored else logits, size)

    def _resized(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.nn.functional.interpolate(
            logits[None], size=size, mode="bilinear", align_corners=self.align_corners
        )[0]


def view_logits(model: Any, batch: Tensor, test_cfg: Any, mirrored: bool) -> ViewLogits:
    """Runs a segmentor on one view.

    Args:
        model: an mmseg segmentor.
        batch: preprocessed, (1, 3, height, width).
        test_cfg: "whole", or "slide" with `crop_size` and `stride`, as mmseg has them.
        mirrored: whether the view shows the photo mirrored.
    """
    height, width = int(batch.shape[2]), int(batch.shape[3])
    if not _is_plain(model):  # a cascade, say, which knows its own ways
        logits = _by_model(model, batch, test_cfg)
        return ViewLogits([LogitWindow(0, 0, height, width, logits)], (height, width), mirrored, model.align_corners)
    windows = [
        LogitWindow(top, left, bottom - top, right - left,
                    model.decode_head(model.extract_feat(batch[:, :, top:bottom, left:right]))[0])
        for top, bottom, left, right in _places(height, width, test_cfg)
    ]  # fmt: skip
    return ViewLogits(windows, (height, width), mirrored, model.align_corners)


def _is_plain(model: Any) -> bool:
    """Whether its logits are those of one head, interpolated."""
    head = getattr(model, "decode_head", None)
    return (
        isinstance(model, EncoderDecoder)
        and type(model).encode_decode is EncoderDecoder.encode_decode
        and isinstance(head, BaseDecodeHead)
        and type(head).predict is BaseDecodeHead.predict
        and type(head).predict_by_feat is BaseDecodeHead.predict_by_feat
    )


def _by_model(model: Any, batch: Tensor, test_cfg: Any) -> Tensor:
    shape = tuple(batch.shape[2:])
    meta = {"ori_shape": shape, "img_shape": shape, "pad_shape": shape, "padding_size": [0] * 4}
    before = model.test_cfg
    model.test_cfg = test_cfg
    try:
        return model.inference(batch, [meta])[0]
    finally:
        model.test_cfg = before


def _places(height: int, width: int, test_cfg: Any) -> Iterator[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of each window, as mmseg's `slide_inference` lays them."""
    if test_cfg.get("mode", "whole") == "whole":
        yield 0, height, 0, width
        return
    (crop_height, crop_width), (step_down, step_right) = test_cfg["crop_size"], test_cfg["stride"]
    for row in range(max(height - crop_height + step_down - 1, 0) // step_down + 1):
        for column in range(max(width - crop_width + step_right - 1, 0) // step_right + 1):
            bottom, right = min(row * step_down + crop_height, height), min(column * step_right + crop_width, width)
            yield max(bottom - crop_height, 0), bottom, max(right - crop_width, 0), right

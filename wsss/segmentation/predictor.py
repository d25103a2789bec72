"""From a photo to class probabilities and labels with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import mmcv
import numpy as np
import torch
from torch import Tensor

from tagclip.errors import UsageError
from tagclip.precision import exact_float32
from wsss.config import CrfConfig
from wsss.files.mask_files import label_dtype
from wsss.segmentation.checkpoints import LoadedSegmentor
from wsss.segmentation.view_logits import ViewLogits, view_logits

BYTES_PER_VALUE = 4 * 3  # float32, and what interpolation and softmax hold beside it
MOST_BYTES = 2**30  # of label maps at the size of a photo


@dataclass(frozen=True)
class InferenceConfig:
    """How a trained model sees a photo.

    Attributes:
        mode: "whole" photo at once, "slide" a window over it, "model" as configured.
        crop, stride: window and step in pixels for "slide", after scaling to the base size.
        scales: factors of the base size; the probabilities are averaged.
        flip: average with the mirrored photo as well.
        base_size: scale photos to the size of the model's test pipeline first; False keeps their own.
        crf: refine with a dense CRF over the labels found, None for not.
    """

    mode: Literal["model", "whole", "slide"] = "model"
    crop: int = 512
    stride: int = 341
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    base_size: bool = True
    crf: CrfConfig | None = None

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise UsageError(f"scales {self.scales} must be positive numbers")
        if not 0 < self.stride <= self.crop:
            raise UsageError(f"stride {self.stride} is not in 1..crop ({self.crop}): it would miss parts")


class Predictor:
    """Applies a model to photos.

    Args:
        segmentor: from `load_segmentor`.
        config: how.
    """

    def __init__(self, segmentor: LoadedSegmentor, config: InferenceConfig | None = None) -> None:
        from mmengine.config import ConfigDict

        self.segmentor = segmentor
        self.config = config or InferenceConfig()
        self.model = segmentor.model
        self.device = next(self.model.parameters()).device
        if self.config.mode == "slide":
            crop, stride = self.config.crop, self.config.stride
            self.test_cfg = ConfigDict(mode="slide", crop_size=(crop, crop), stride=(stride, stride))
        elif self.config.mode == "whole":
            self.test_cfg = ConfigDict(mode="whole")
        else:
            self.test_cfg = ConfigDict(self.model.test_cfg or {"mode": "whole"})

    @torch.inference_mode()
    @exact_float32()
    def probabilities(self, rgb: np.ndarray, labels: Sequence[int] | None = None) -> np.ndarray:
        """Class probabilities of each pixel.

        Args:
            rgb: (H, W, 3) uint8.
            labels: only these labels compete; all if None.

        Returns:
            (K, H, W) float32, K the number of `labels` or of all labels; columns sum to 1.
        """
        views = list(self._logits(rgb))
        chosen = slice(None) if labels is None else torch.as_tensor(list(labels), device=self.device)
        total: Tensor | None = None
        for view in views:
            scores = view.at(rgb.shape[:2], chosen).softmax(dim=0)
            total = scores if total is None else total.add_(scores)
        assert total is not None  # there is always the plain view
        return (total / len(views)).float().cpu().numpy()

    def labels(self, rgb: np.ndarray) -> np.ndarray:
        """Label of each pixel, (H, W) uint8, or uint16 for more than 255 labels."""
        return self.labels_with_confidence(rgb)[0]

    def labels_with_confidence(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`labels`, and the probability of each pixel's label, (H, W) float32; after the CRF if there is one.

        Memory is bounded for any number of labels: `labels_at_once` of them are at the photo's size at a time.
        """
        count = len(self.segmentor.classes)
        if labels_at_once(rgb.shape[:2]) >= count:
            probabilities = self.probabilities(rgb)
            labels, confidence = probabilities.argmax(axis=0), probabilities.max(axis=0)
            return self._refined(rgb, labels, confidence, lambda present: probabilities[present])
        return self._refined(rgb, *self._by_parts(rgb, count))

    def _refined(
        self, rgb: np.ndarray, labels: np.ndarray, confidence: np.ndarray, shares: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels and confidence after the CRF, if there is one; `shares` gives the probabilities of some labels."""
        present, dtype = np.unique(labels), label_dtype(len(self.segmentor.classes))
        if self.config.crf is None or len(present) == 1:
            return labels.astype(dtype), confidence
        refined = refine(rgb, shares(present), self.config.crf, self.device)
        return present[refined.argmax(axis=0)].astype(dtype), refined.max(axis=0)

    @torch.inference_mode()
    @exact_float32()
    def _by_parts(
        self, rgb: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Labels, their probabilities, and a function that gives those of some labels: a few labels at a time."""
        size, views = rgb.shape[:2], list(self._logits(rgb))
        normalisers = _normalisers(views, size, count)
        confidence = torch.full(size, -1.0, device=self.device)
        labels = torch.zeros(size, dtype=torch.int64, device=self.device)
        for part in _parts(size, count):
            most, winners = _mean_shares(views, normalisers, size, part).float().max(dim=0)
            wins = most > confidence
            confidence[wins], labels[wins] = most[wins], winners[wins] + part.start

        def shares(present: np.ndarray) -> np.ndarray:
            chosen = torch.as_tensor(present, device=self.device)
            return _mean_shares(views, normalisers, size, chosen).float().cpu().numpy()

        return labels.cpu().numpy(), confidence.cpu().numpy(), shares

    def _views(self, rgb: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
        height, width = rgb.shape[:2]
        base_width, base_height = (width, height)
        if self.config.base_size:
            base_width, base_height = _pipeline_size((width, height), self.segmentor.test_pipeline)
        for scale in self.config.scales:
            size = (max(1, int(base_width * scale + 0.5)), max(1, int(base_height * scale + 0.5)))
            view = rgb if size == (width, height) else cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
            yield view, False
            if self.config.flip:
                yield np.ascontiguousarray(view[:, ::-1]), True

    def _logits(self, rgb: np.ndarray) -> Iterator[ViewLogits]:
        """Logits of each view."""
        for seen, mirrored in self._views(rgb):
            bgr = torch.from_numpy(np.ascontiguousarray(seen[:, :, ::-1].transpose(2, 0, 1)))
            batch = self.model.data_preprocessor({"inputs": [bgr.to(self.device)]}, False)["inputs"]
            yield view_logits(self.model, batch, self.test_cfg, mirrored)


def labels_at_once(size: tuple[int, int]) -> int:
    """How many labels of a photo of this (height, width) are held at its size at a time."""
    return max(1, MOST_BYTES // (BYTES_PER_VALUE * size[0] * size[1]))


def _parts(size: tuple[int, int], count: int) -> Iterator[slice]:
    step = labels_at_once(size)
    return (slice(first, min(first + step, count)) for first in range(0, count, step))


def _normalisers(views: Sequence[ViewLogits], size: tuple[int, int], count: int) -> list[Tensor]:
    """log of the sum of exponentials over all labels, (H, W), of each view."""
    found = []
    for view in views:
        sums = [view.at(size, part).logsumexp(dim=0) for part in _parts(size, count)]
        found.append(torch.stack(sums).logsumexp(dim=0))
    return found


def _mean_shares(
    views: Sequence[ViewLogits], normalisers: Sequence[Tensor], size: tuple[int, int], labels: slice | Tensor
) -> Tensor:
    """Probabilities of some labels, averaged over the views, (labels, H, W)."""
    total: Tensor | None = None
    for view, normaliser in zip(views, normalisers, strict=True):
        shares = (view.at(size, labels) - normaliser).exp_()
        total = shares if total is None else total.add_(shares)
    assert total is not None
    return total / len(views)


def refine(
    rgb: np.ndarray, probabilities: np.ndarray, config: CrfConfig, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Probabilities (K, H, W) of a few labels after a dense CRF over them, (K, H, W) float32."""
    from wsss.masks.crf import crf_probabilities

    return crf_probabilities(rgb, np.ascontiguousarray(probabilities), config, device)


def _pipeline_size(size: tuple[int, int], pipeline: Sequence[dict]) -> tuple[int, int]:
    """(width, height) after the pipeline's Resize, the photo's own without one."""
    for step in pipeline:
        if step.get("type") == "Resize" and step.get("scale"):
            if not step.get("keep_ratio"):
                return tuple(step["scale"])
            return mmcv.rescale_size(size, tuple(step["scale"]))
        if step.get("type") == "Resize" and step.get("scale_factor"):
            return mmcv.rescale_size(size, step["scale_factor"])
    return size

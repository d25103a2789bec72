"""From a photo to class probabilities and labels with a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        total: Tensor | None = None
        views = 0
        chosen = None if labels is None else torch.as_tensor(list(labels), device=self.device)
        for view, mirrored in self._views(rgb):
            logits = self._logits(view)
            logits = logits if chosen is None else logits[chosen]
            if mirrored:
                logits = logits.flip(-1)
            logits = torch.nn.functional.interpolate(
                logits[None], size=rgb.shape[:2], mode="bilinear", align_corners=self.model.align_corners
            )[0]
            scores = logits.softmax(dim=0)
            total = scores if total is None else total.add_(scores)
            views += 1
        assert total is not None  # there is always the plain view
        return (total / views).float().cpu().numpy()

    def labels(self, rgb: np.ndarray) -> np.ndarray:
        """Label of each pixel, (H, W) uint8, or uint16 for more than 255 labels."""
        return self.labels_with_confidence(rgb)[0]

    def labels_with_confidence(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`labels`, and the probability of each pixel's label, (H, W) float32; after the CRF if there is one."""
        probabilities = self.probabilities(rgb)
        dtype = label_dtype(len(self.segmentor.classes))
        labels = probabilities.argmax(axis=0).astype(dtype)
        present = np.unique(labels)
        if self.config.crf is None or len(present) == 1:
            return labels, probabilities.max(axis=0)
        refined = refine(rgb, probabilities[present], self.config.crf, self.device)
        return present[refined.argmax(axis=0)].astype(dtype), refined.max(axis=0)

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

    def _logits(self, rgb: np.ndarray) -> Tensor:
        bgr = torch.from_numpy(np.ascontiguousarray(rgb[:, :, ::-1].transpose(2, 0, 1)))
        batch = self.model.data_preprocessor({"inputs": [bgr.to(self.device)]}, False)["inputs"]
        shape = tuple(rgb.shape[:2])
        meta = {"ori_shape": shape, "img_shape": shape, "pad_shape": shape, "padding_size": [0] * 4}
        before = self.model.test_cfg
        self.model.test_cfg = self.test_cfg
        try:
            return self.model.inference(batch, [meta])[0]
        finally:
            self.model.test_cfg = before


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

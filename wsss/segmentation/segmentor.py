"""A trained model in one line: a checkpoint, called with a photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from tagclip.arguments import ImageInput, as_images, is_one_image
from tagclip.devices import resolve_device
from tagclip.images import decode_image
from wsss.segmentation.checkpoints import load_segmentor
from wsss.segmentation.predictor import InferenceConfig, Predictor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SegmentedImage:
    """Label map of one photo.

    Attributes:
        image: the decoded photo, (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, index into `classes`.
        confidence: (H, W) float32, probability of each pixel's label in [0, 1].
        classes: names by label, the background first if the model has one.
        palette: colours by label, (labels, 3) uint8 RGB.
    """

    image: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    classes: tuple[str, ...]
    palette: np.ndarray

    @property
    def shares(self) -> dict[str, float]:
        """Class name -> share of the pixels, in [0, 1], of every class that was found; largest first."""
        found, counts = np.unique(self.labels, return_counts=True)
        shares = zip(found.tolist(), (counts / self.labels.size).tolist(), strict=True)
        return {self.classes[label]: share for label, share in sorted(shares, key=lambda one: -one[1])}

    def plot(self) -> Figure:
        """A matplotlib figure: the photo, and the labels over it with a legend of their colours."""
        from matplotlib.figure import Figure

        from wsss.masks.labeled_image import PANEL_INCHES, draw_labels

        height, width = self.labels.shape
        panel = PANEL_INCHES * min(max(width / height, 0.5), 3.0)
        figure = Figure(figsize=(2 * panel, PANEL_INCHES + 0.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(self.image)
        left.set_title("image")
        has_background = self.classes[0] == "background"
        draw_labels(right, self.image, self.labels, self.classes, self.palette, has_background=has_background)
        right.set_title("labels")
        for axes in (left, right):
            axes.set_axis_off()
        return figure


class Segmentor:
    """A trained model, from its checkpoint.

    Args:
        checkpoint: file that `tagclip train` wrote, or any mmseg checkpoint with `config`.
        config: of mmseg; needed for checkpoints that do not describe themselves.
        device: where the model runs; None: the accelerator if there is one.
        inference: how it sees a photo (whole or in windows, scales, mirrored, CRF); None: as it was trained to.

    Attributes:
        classes: names by label.

    Raises:
        WeightsError: not a checkpoint, or weights of another model.
        UsageError: a checkpoint without description and no config, or a device that is not there.

    Example:
        >>> found = Segmentor("checkpoint.pth")("photo.jpg")  # doctest: +SKIP
        >>> found.labels.shape, found.shares  # doctest: +SKIP
        ((375, 500), {'background': 0.71, 'cat': 0.29})
    """

    def __init__(
        self,
        checkpoint: str | Path,
        config: str | Path | None = None,
        *,
        device: torch.device | str | None = None,
        inference: InferenceConfig | None = None,
    ):
        loaded = load_segmentor(checkpoint, config, device=str(resolve_device(device)))
        self.classes = loaded.classes
        self._palette = np.asarray(loaded.palette, np.uint8)
        self._predictor = Predictor(loaded, inference)

    @overload
    def __call__(self, images: ImageInput) -> SegmentedImage: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Iterable[ImageInput]) -> list[SegmentedImage]: ...
    def __call__(self, images: ImageInput | Iterable[ImageInput]) -> SegmentedImage | list[SegmentedImage]:
        """Labels of one photo, or of several, one after the other.

        Args:
            images: a path, PIL image or (H, W, 3) uint8 RGB array; or a list of them.

        Returns:
            One result for one photo; for a list, a list with one result per photo, in the order given.

        Raises:
            ImageError: a file that cannot be read as an image.
            UsageError: something else than images.
        """
        if is_one_image(images):
            return self._segment(images)
        return [self._segment(image) for image in as_images(images)]

    def _segment(self, image: ImageInput) -> SegmentedImage:
        rgb = decode_image(image)
        labels, confidence = self._predictor.labels_with_confidence(rgb)
        return SegmentedImage(rgb, labels, confidence, self.classes, self._palette)

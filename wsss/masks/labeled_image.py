"""Tags, class maps and mask of one image in one object, and a picture of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from tagclip.vocabulary import Vocabulary
from wsss.files.mask_files import IGNORE_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = 3.0
FILL = 0.6  # weight of class colours over the image
HEAT = 0.55  # weight of a heat map over the image


@dataclass(frozen=True)
class LabeledImage:
    """What both stages say of one image.

    Attributes:
        image: the decoded image, (H, W, 3) uint8 RGB.
        tags: names of the classes that the tag rule chose, in class order.
        scores: class name -> score in [0, 1] of every class, best first.
        maps: tag name -> class map, (h, w) float32 in [0, 1] on the patch grid.
        mask: (H, W) uint8: 0 background and class c -> c + 1 (without background: c -> c), `ignore_label` where
            confidence is low.
        confidence: (H, W) float32, highest label probability of each pixel.
        vocabulary: the classes; `vocabulary.label_names` are the names of the mask's labels.
        ignore_label: label of pixels that are left open.
    """

    image: np.ndarray
    tags: list[str]
    scores: dict[str, float]
    maps: dict[str, np.ndarray]
    mask: np.ndarray
    confidence: np.ndarray
    vocabulary: Vocabulary
    ignore_label: int = 255

    def plot(self, max_maps: int = 4) -> Figure:
        """A figure: the image, the class maps of the best-scored tags, and the mask with a legend of its colours.

        Args:
            max_maps: most class maps shown.

        Returns:
            A matplotlib figure that belongs to no window; notebooks show it, `figure.savefig("a.png")` writes it.
        """
        from matplotlib.figure import Figure

        shown = sorted(self.tags, key=lambda name: -self.scores[name])[:max_maps]
        height, width = self.mask.shape
        panel = PANEL_INCHES * min(max(width / height, 0.5), 3.0)
        figure = Figure(figsize=(panel * (2 + len(shown)), PANEL_INCHES + 0.6), layout="constrained")
        axes = figure.subplots(1, 2 + len(shown))
        for one in axes:
            one.set_axis_off()
        axes[0].imshow(self.image)
        axes[0].set_title("image")
        for one, name in zip(axes[1:-1], shown, strict=True):
            full = cv2.resize(self.maps[name].astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
            one.imshow(self.image)
            one.imshow(full, cmap="turbo", vmin=0, vmax=1, alpha=HEAT)
            one.set_title(f"{name} {self.scores[name]:.2f}")
        draw_labels(
            axes[-1], self.image, self.mask, self.vocabulary.label_names, self.vocabulary.label_palette,
            has_background=self.vocabulary.has_background, ignore_label=self.ignore_label,
        )  # fmt: skip
        axes[-1].set_title("mask")
        return figure


def draw_labels(
    axes: Axes,
    image: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, ...],
    palette: np.ndarray,
    *,
    has_background: bool = True,
    ignore_label: int = 255,
) -> None:
    """A label map over its image, with a legend of the labels in it, the background apart.

    Args:
        axes: of matplotlib.
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8.
        names: by label.
        palette: colours by label, (labels, 3) uint8.
        has_background: label 0 is the background, and the image shows there.
        ignore_label: drawn in the colour of ignored pixels, whatever its name.
    """
    from matplotlib.patches import Patch

    colours = {label: palette[label] for label in np.unique(labels).tolist() if label != ignore_label}
    if has_background:
        colours.pop(0, None)
    texts = {label: names[label] for label in colours}
    if (labels == ignore_label).any():
        colours[ignore_label], texts[ignore_label] = np.array(IGNORE_COLOUR, np.uint8), "ignored"
    blend = image.astype(np.float32)
    for label, colour in colours.items():
        inside = labels == label
        blend[inside] = blend[inside] * (1 - FILL) + colour * FILL
    axes.imshow(np.rint(blend).astype(np.uint8))
    entries = [Patch(facecolor=colours[label] / 255, edgecolor="0.5", label=texts[label]) for label in colours]
    if entries:
        below = (0, -0.02)
        axes.legend(handles=entries, loc="upper left", bbox_to_anchor=below, ncols=2, fontsize="small", frameon=False)

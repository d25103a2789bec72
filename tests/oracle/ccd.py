"""CCD's second look at crops (section 5b of the specification), one image, one class and one pixel at a time.

The choices are the product's default ones: the box holds all pixels of the peak, an image without a class keeps its
labels. Threshold, boxes and labels are worked out in plain Python.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.oracle.model import MEAN, STD, OracleCLIP

TEMPLATE = "a photo of the {}"


@dataclass
class LookTrace:
    """What is found in one image: chosen classes, their boxes (x0, y0, x1, y1), and its new labels."""

    classes: list[int]
    boxes: list[tuple[int, int, int, int]]
    answers: list[np.ndarray]
    labels: np.ndarray


def find_threshold(predicted: list[list[float]], bound: float, first: float = 0.001, step: float = 0.001) -> float:
    """Step up until the mean number of classes per image is below bound + 2."""
    number = 0
    while True:
        threshold = first + step * number
        count = 0
        for row in predicted:
            count += sum(value >= threshold for value in row)
        if count / len(predicted) < bound + 2 or threshold + step >= 1:
            return threshold
        number += 1


def weighted_map(features: Tensor, weights: Tensor, label: int) -> Tensor:
    """Class activation map of one class from the last feature map (D, h, w) and the head's weights (C, D)."""
    total = torch.zeros(features.shape[1:])
    for channel in range(len(features)):
        total += weights[label, channel] * features[channel]
    return total


def peak_box(cam: Tensor, side: int, offset: int, peak: float = 0.95) -> tuple[int, int, int, int]:
    """Box around the pixels above the peak in a square of `side`, larger by the offset; the square for a flat map."""
    large = F.interpolate(cam[None, None], (side, side), mode="bilinear", align_corners=False)[0, 0]
    low, high = float(large.min()), float(large.max())
    if high == low:
        return 0, 0, side, side
    scaled = ((large - large.min()) / (large.max() - large.min())).tolist()
    pixels = [(y, x) for y in range(side) for x in range(side) if scaled[y][x] > peak]
    rows, columns = [y for y, _ in pixels], [x for _, x in pixels]
    return (
        max(0, min(columns) - offset), max(0, min(rows) - offset),
        min(side, max(columns) + 1 + offset), min(side, max(rows) + 1 + offset),
    )  # fmt: skip


def read_crop(clip: OracleCLIP, square: Tensor, box: tuple[int, int, int, int], text: Tensor, side: int) -> np.ndarray:
    """CLIP's softmax over the classes for a part of a square (3, side, side) in [0, 1]."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    longer = max(width, height)
    pixels = []
    for length in (height, width):
        wanted = max(1, round(length * side / longer))
        pixels.append(-(-wanted // clip.patch) * clip.patch)
    part = F.interpolate(square[None, :, y0:y1, x0:x1], tuple(pixels), mode="bilinear", align_corners=False)[0]
    part = (part - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return (clip.logit_scale * text @ clip.encode_image(part)).softmax(dim=0).numpy()


def look_again(
    clip: OracleCLIP, square: Tensor, cams: Tensor, predicted: list[float], labels: np.ndarray, names: list[str],
    threshold: float, *, offset: int, ratio: float = 0.2, floor: float = 0.0, bias: np.ndarray | None = None,
) -> LookTrace:  # fmt: skip
    """One image: its square (3, side, side), the maps of all classes (C, h, w), predictions and labels (C,)."""
    side = square.shape[1]
    text = torch.stack([clip.text_row(name, [TEMPLATE]) for name in names])
    bias = np.ones(len(names)) if bias is None else bias
    classes = [label for label in range(len(names)) if predicted[label] >= threshold]
    boxes = [peak_box(cams[label], side, offset) for label in classes]
    answers = [read_crop(clip, square, box, text, side) for box in boxes]
    new = np.array(labels, dtype=np.float64)
    if classes:
        for label in range(len(names)):
            best = max(float(answer[label]) for answer in answers)
            answer = max(max(best, floor) / bias[label], labels[label])  # the old label is corrected already
            new[label] = ratio * labels[label] + (1 - ratio) * answer
            new[label] = min(1.0, max(0.0, new[label]))
    return LookTrace(classes, boxes, answers, new)

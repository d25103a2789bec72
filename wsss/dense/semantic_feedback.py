"""Semantic feedback (ResCLIP, arXiv 2411.15851, section 3.3): a first answer says which patches belong together.

The first pass labels every patch; patches of one label attend to each other in the second, less so where another label
lies between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.config import PamrConfig
from wsss.dense.logits import PatchField
from wsss.maps.parts import row_parts
from wsss.masks.pamr import refine_with_pamr

NO_LABEL = -1


@dataclass(frozen=True)
class FeedbackConfig:
    """Constants of the semantic feedback.

    Attributes:
        weight (lambda_s): share of the feedback in the attention logits, which are scale (tau_s) times the mixture.
        logit_scale: factor of the cosines before the softmax.
        threshold: pixels whose best word is less probable have no label; None: 1 / sqrt(number of words), a rough start
            for a data set that the publication has no value for.
        doubtful_is_first: quirk of the published code: such pixels get the first word, a real class where the
            vocabulary has no background, instead of a label of their own.
        pamr: refinement of the first pass by colours; None leaves it out.
        decay: weaken pairs between which another label lies, by exp(-distance / largest distance of the grid).
        path_check: how far the line between two patches is looked along. "full" to its end; "code" is a quirk of the
            published code: its first distance / (largest distance) only.
        blur: standard deviation, in patches of the flattened grid, of the Gaussian over each row of the map; 0: none.
        blur_reach: patches that it covers at most.
        half_precision: quirk of the published code: the map passes through float16.
    """

    weight: float = 0.7
    scale: float = 1.8
    logit_scale: float = 40.0
    threshold: float | None = None
    doubtful_is_first: bool = False
    pamr: PamrConfig | None = field(default_factory=lambda: PamrConfig(dilations=(8, 16)))
    decay: bool = True
    path_check: Literal["full", "code"] = "full"
    blur: float = 5.0
    blur_reach: int = 31
    half_precision: bool = False


@dataclass(frozen=True)
class FirstAnswer:
    """The first pass at every pixel.

    Attributes:
        words: most probable word, (H, W) int64.
        probabilities: its probability, (H, W) fp32.
    """

    words: Tensor
    probabilities: Tensor


def first_answer(
    cosines: Tensor, image: Tensor | None, size: tuple[int, int], config: FeedbackConfig, part_bytes: int = 2**26
) -> FirstAnswer:
    """Cosines on the patch grid brought to pixels, refined by the image's colours, some words at a time.

    Args:
        cosines: (Q, h, w) fp32.
        image: the model's input, (3, H, W); None leaves the refinement out.
        size: height and width in pixels.
    """
    field = PatchField(cosines, *size)
    step = max(1, part_bytes // (4 * size[0] * size[1]))
    best = torch.full(size, -torch.inf, device=cosines.device)
    total, words = best.clone(), torch.zeros(size, dtype=torch.long, device=cosines.device)
    for first in range(0, len(cosines), step):
        maps = field.rows(0, size[0], slice(first, first + step))
        if config.pamr is not None and image is not None:
            maps = refine_with_pamr(image, maps, config.pamr)
        logits = config.logit_scale * maps
        total = torch.logaddexp(total, logits.logsumexp(dim=0))
        highest, word = logits.max(dim=0)
        wins = highest > best
        best[wins], words[wins] = highest[wins], word[wins] + first
    return FirstAnswer(words, (best - total).exp_())


def label_grid(answer: FirstAnswer, patch_size: int, threshold: float, doubtful: int = NO_LABEL) -> Tensor:
    """The most frequent word of each patch's pixels, the smallest of equals: (h, w) int64.

    Args:
        answer: of H x W pixels; those that fill no patch do not count.
        threshold: pixels below it count as `doubtful`.
    """
    grid = (answer.words.shape[0] // patch_size, answer.words.shape[1] // patch_size)
    labels = answer.words.where(answer.probabilities >= threshold, torch.tensor(doubtful, device=answer.words.device))
    whole = labels[: grid[0] * patch_size, : grid[1] * patch_size]
    flat = whole.unflatten(1, (grid[1], patch_size)).unflatten(0, (grid[0], patch_size)).transpose(1, 2)
    flat = flat.flatten(2).flatten(0, 1)
    # Not torch.mode: which of several equals it takes is left open.
    counts = torch.zeros(len(flat), int(labels.max()) + 2, dtype=torch.int32, device=flat.device)
    counts.scatter_add_(1, flat + 1, torch.ones_like(flat, dtype=torch.int32))
    return (counts.argmax(dim=1) - 1).view(grid)


def feedback_map(labels: Tensor, config: FeedbackConfig) -> Tensor:
    """Which patches should attend to each other: (h, w) int64 -> (N, N) fp32, rows summing to 1."""
    height, width = labels.shape
    flat = labels.flatten()
    farthest = max(height, width) - 1
    result = torch.empty(len(flat), len(flat), device=labels.device)
    kernel = blur_kernel(len(flat), config, labels.device) if config.blur > 0 else None
    for part in row_parts(len(flat), 4 * len(flat)):
        rows = (flat[part, None] == flat).float()
        if config.decay and farthest > 1:
            decay_separated(rows, labels, part.start, config.path_check)
        if kernel is not None:
            rows = F.conv1d(rows[:, None], kernel[None, None], padding=len(kernel) // 2)[:, 0].relu_()
        result[part] = rows / (rows.sum(dim=1, keepdim=True) + 1e-8)
    return result


def decay_separated(rows: Tensor, labels: Tensor, start: int, path_check: str) -> None:
    """Weakens, in place, the pairs of one label between which another label lies.

    Args:
        rows: rows start, start + 1, ... of the (N, N) map of equal labels, which are 1.
        labels: (h, w).
        path_check: see `FeedbackConfig`.
    """
    height, width = labels.shape
    farthest = max(height, width) - 1
    source, target = rows.nonzero(as_tuple=True)
    y, x = (source + start) // width, (source + start) % width
    down, right = target // width - y, target % width - x
    distance = torch.maximum(down.abs(), right.abs())
    open_, apart = (distance > 1).nonzero().flatten(), torch.zeros_like(distance, dtype=torch.bool)
    shares = torch.linspace(0, 1, farthest + 1, device=labels.device)
    for step in range(1, farthest + 1):
        open_ = open_[distance[open_] >= step]
        if not len(open_):
            break
        share = shares[step] if path_check == "code" else step / distance[open_].float()
        # Ties of the rounding, half to even, are those of float32.
        at_y = (y[open_].float() + share * down[open_].float()).round().long()
        at_x = (x[open_].float() + share * right[open_].float()).round().long()
        other = labels[at_y, at_x] != labels[y[open_], x[open_]]
        apart[open_[other]] = True
        open_ = open_[~other]
    weaker = torch.exp(-distance[apart].float() / farthest)
    rows[source[apart], target[apart]] *= weaker


def blur_kernel(count: int, config: FeedbackConfig, device: torch.device) -> Tensor:
    """Gaussian weights of at most `blur_reach` patches of a row of `count`, an odd number of them."""
    size = min(count, config.blur_reach)
    size += 1 - size % 2
    at = torch.arange(size, device=device, dtype=torch.float32) - size // 2
    weights = torch.exp(-(at**2) / (2 * config.blur**2))
    return weights / weights.sum()


def feedback_bias(labels: Tensor, config: FeedbackConfig) -> Tensor:
    """scale * weight * the map divided by its largest entry, zero for [CLS]: (1 + N, 1 + N) fp32, added to logits."""
    found = feedback_map(labels, config)
    found /= found.max()
    if config.half_precision:
        found = (found.half() * config.weight).float()
        found *= config.scale
    else:
        found *= config.weight * config.scale
    return F.pad(found, (1, 0, 1, 0))

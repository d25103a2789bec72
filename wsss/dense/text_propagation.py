"""Text-aware label propagation (PEARL, arXiv 2603.21528): cosines smoothed along edges where words agree.

A confident pixel keeps its cosines; a doubtful one takes those of neighbours of the same brightness that mean the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.dense.logits import LogitField, PatchField

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL = 1e-6
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class PropagationConfig:
    """Constants of PEARL's propagation.

    Attributes:
        grid: the image is averaged over windows of round(side / grid) pixels, so that about so many cells are left.
        agreement: how alike two pixels' words are. "full" compares all pairs of words, as in the paper; "diagonal" each
            word with itself alone, as in its code (quirk: relations between words then play no part).
        temperature: of the softmax that makes relations of the words' cosines.
        self_relation: added to each word's relation with itself.
        edge_sharpness: in the weight of neighbours, exp(-sharpness |difference| / mean |difference|), in grey levels.
        least_probability: a pixel's weight is at least the square of this, however doubtful it is.
        steps: conjugate gradient steps. The solution is far from reached: their number is part of the method.
    """

    grid: int = 80
    agreement: Literal["full", "diagonal"] = "full"
    temperature: float = 0.5
    self_relation: float = 10.0
    edge_sharpness: float = 5.0
    least_probability: float = 0.05
    steps: int = 25


def word_relations(rows: Tensor, config: PropagationConfig) -> Tensor:
    """softmax(cosines / temperature) + self_relation I, rows summing to 1: unit-norm (Q, D) -> (Q, Q)."""
    relations = (rows @ rows.T / config.temperature).softmax(dim=-1)
    relations = relations + config.self_relation * torch.eye(len(rows), device=rows.device)
    relations = relations / relations.sum(dim=-1, keepdim=True)
    return relations.diagonal().diag() if config.agreement == "diagonal" else relations


def edge_weights(
    grey: Tensor, probabilities: Tensor, related: Tensor, config: PropagationConfig
) -> tuple[Tensor, Tensor]:
    """Weights of a cell's edges to the left and to the upper neighbour.

    Args:
        grey: (h, w).
        probabilities: (Q, h, w), and `related`: the same times the relations of the words.

    Returns:
        Two (h, w) fp32 in [0, 1]; the first column of the one and the first row of the other, all 1, belong to no edge.
    """
    found = []
    for axis in (1, 0):
        size = grey.shape[axis] - 1
        weights = torch.ones_like(grey)
        if size:
            near, far = (torch.narrow(grey, axis, start, size) for start in (1, 0))
            difference = (near - far).abs()
            alike = (
                torch.narrow(probabilities, axis + 1, 1, size) * torch.narrow(related, axis + 1, 0, size)
            ).sum(dim=0)
            decay = torch.exp(-config.edge_sharpness * difference / (difference.mean() + SMALL))
            torch.narrow(weights, axis, 1, size).copy_((decay * (1 + alike)).clamp(max=1))
        found.append(weights)
    return found[0], found[1]


def laplacian(maps: Tensor, left: Tensor, up: Tensor) -> Tensor:
    """Weighted graph Laplacian of the grid, applied to each map: (Q, h, w) -> (Q, h, w)."""
    result = torch.zeros_like(maps)
    across = (maps[:, :, 1:] - maps[:, :, :-1]) * left[:, 1:]
    result[:, :, 1:] += across
    result[:, :, :-1] -= across
    down = (maps[:, 1:] - maps[:, :-1]) * up[1:]
    result[:, 1:] += down
    result[:, :-1] -= down
    return result


def solve_propagation(cosines: Tensor, grey: Tensor, rows: Tensor, config: PropagationConfig) -> Tensor:
    """(rho + L) F = rho cosines by conjugate gradients from the cosines, one step length for all words.

    Args:
        cosines: (Q, h, w) fp32.
        grey: brightness of the cells, (h, w), any scale.
        rows: unit-norm text rows, (Q, D).

    Returns:
        F, (Q, h, w).
    """
    probabilities = cosines.softmax(dim=0)
    related = torch.einsum("qr,rhw->qhw", word_relations(rows, config), probabilities)
    left, up = edge_weights(grey, probabilities, related, config)
    own = 1 + (probabilities * related).sum(dim=0)
    weight = probabilities.amax(dim=0).clamp(min=config.least_probability) ** 2 * own

    def operator(maps: Tensor) -> Tensor:
        return weight * maps + laplacian(maps, left, up)

    solution = cosines.clone()
    residual = weight * cosines - operator(solution)
    direction, energy = residual.clone(), residual.square().sum()
    for _ in range(config.steps):
        image = operator(direction)
        length = energy / ((direction * image).sum() + torch.finfo(image.dtype).tiny)
        solution = solution + length * direction
        residual = residual - length * image
        last, energy = energy, residual.square().sum()
        direction = residual + energy / last.clamp(min=torch.finfo(image.dtype).tiny) * direction
    return solution


def pooling_window(size: tuple[int, int], grid: int) -> tuple[int, int]:
    """Height and width in pixels of the windows that an image of this size is averaged over."""
    return max(1, round(size[0] / grid)), max(1, round(size[1] / grid))


def pooled(field: LogitField, window: tuple[int, int], chunk_bytes: int) -> Tensor:
    """Mean of a field's logits over windows, leftover rows and columns dropped: (Q, h, w); band by band."""
    height, width = window
    cells = field.height // height
    step = max(1, chunk_bytes // (field.count * field.width * 4 * height))
    bands = [
        F.avg_pool2d(field.rows(first * height, min(first + step, cells) * height)[None], (height, width))[0]
        for first in range(0, cells, step)
    ]
    return torch.cat(bands, dim=1)


def propagate(
    field: LogitField,
    rows: Tensor,
    rgb: np.ndarray,
    config: PropagationConfig,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    chunk_bytes: int,
) -> LogitField:
    """A field's cosines after propagation.

    Args:
        field: cosines of Q words at every pixel of the image.
        rows: unit-norm text rows of the words, (Q, D).
        rgb: the image, (H, W, 3) uint8.
        mean, std: of the model's normalisation.
        chunk_bytes: memory that the logits of one band of rows may take.
    """
    window = pooling_window((field.height, field.width), config.grid)
    grey = grey_cells(rgb, window, mean, std).to(rows.device)
    cosines = pooled(field, window, chunk_bytes)
    return PatchField(solve_propagation(cosines, grey, rows, config), field.height, field.width)


def grey_cells(rgb: np.ndarray, window: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Brightness of the normalised image, averaged over windows: (H, W, 3) uint8 -> (h, w) fp32."""
    values = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1).float() / 255
    values = (values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    red, green, blue = F.avg_pool2d(values[None], window)[0]
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue

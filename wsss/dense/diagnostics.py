"""GCLIP's two observations about a model, as numbers and as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagclip.clip.attention import mlp_output_norms
from tagclip.clip.encoder import FrozenCLIP
from tagclip.precision import exact_float32
from wsss.dense.emergence import EmergenceConfig, attention_received, global_token_blocks, strongest_received


@dataclass(frozen=True)
class Diagnosis:
    """What GCLIP looks at.

    Attributes:
        received: attention received by each patch in each block, (L, h, w), 1 is an even share.
        strength: mean over the strongest few patches of each block, (L,).
        blocks: the pair of global-token emerging blocks that follows from it.
        norms: L2 norms of the rows of each block's MLP output projection, (L, width).
    """

    received: np.ndarray
    strength: np.ndarray
    blocks: tuple[int, int]
    norms: np.ndarray

    @property
    def channels(self) -> list[int]:
        """Channel with the largest row norm, by block."""
        return self.norms.argmax(axis=1).tolist()

    @property
    def ratios(self) -> list[float]:
        """Largest row norm over the mean of the others, by block."""
        largest = self.norms.max(axis=1)
        return (largest * (self.norms.shape[1] - 1) / (self.norms.sum(axis=1) - largest)).tolist()

    def text(self) -> str:
        """A table, one line a block."""
        lines = [f"{'block':>5} {'attention to strongest patches':>31} {'largest row norm':>17} {'channel':>8}"]
        rows = zip(self.strength, self.ratios, self.channels, strict=True)
        for number, (strength, ratio, channel) in enumerate(rows, start=1):
            lines.append(f"{number:>5} {strength:>30.2f}x {ratio:>16.2f}x {channel:>8}")
        return "\n".join([*lines, f"global-token emerging blocks: {self.blocks[0]} and {self.blocks[1]}"])


@torch.no_grad()
@exact_float32()
def diagnose(clip: FrozenCLIP, image: Tensor, config: EmergenceConfig | None = None) -> Diagnosis:
    """Both diagnostics of a model on one image, normalised, (3, H, W)."""
    config = config or EmergenceConfig()
    received = attention_received(clip, image[None])
    strength = strongest_received(received, config.strongest)
    grid = (image.shape[1] // clip.patch_size, image.shape[2] // clip.patch_size)
    norms = torch.stack([mlp_output_norms(block) for block in clip.blocks])
    return Diagnosis(
        received[0].unflatten(1, grid).cpu().numpy(),
        strength.cpu().numpy(),
        global_token_blocks(strength, config),
        norms.cpu().numpy(),
    )


def draw_attention(found: Diagnosis, path: Path, title: str) -> None:
    """Map of the attention received in every block on one scale, and the strength of the strongest few below."""
    from matplotlib.figure import Figure

    depth = len(found.received)
    columns = min(depth, 6)
    lines = -(-depth // columns)
    figure = Figure(figsize=(1.9 * columns, 2.0 * lines + 2.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2.0 * lines, 2.4], squeeze=False).flat
    top = float(found.received.max())
    for index, axes in enumerate(above.subplots(lines, columns, squeeze=False).flat):
        axes.set_axis_off()
        if index < depth:
            axes.imshow(found.received[index], vmin=0, vmax=top, cmap="magma")
            axes.set_title(f"block {index + 1}", fontsize=8)
    curve = below.subplots()
    curve.plot(range(1, depth + 1), found.strength, marker="o")
    curve.axvspan(found.blocks[0] - 0.5, found.blocks[1] + 0.5, alpha=0.2)
    curve.set(xlabel="block", ylabel="times an even share", xticks=range(1, depth + 1))
    figure.suptitle(f"Attention received per patch, {title}")
    figure.savefig(path, dpi=110)


def draw_norms(found: Diagnosis, path: Path, title: str) -> None:
    """Row norms of each block's MLP output projection by channel, the largest named."""
    from matplotlib.figure import Figure

    depth = len(found.norms)
    columns = min(depth, 4)
    lines = -(-depth // columns)
    figure = Figure(figsize=(2.9 * columns, 1.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for index, axes in enumerate(panels.flat):
        if index >= depth:
            axes.set_axis_off()
            continue
        axes.plot(found.norms[index], linewidth=0.6)
        channel = found.channels[index]
        axes.plot([channel], [found.norms[index, channel]], "o", markersize=4)
        axes.set_title(f"block {index + 1}: channel {channel}, {found.ratios[index]:.1f}x", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.suptitle(f"Row norms of c_proj.weight, {title}")
    figure.savefig(path, dpi=110)

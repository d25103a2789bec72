"""Channel suppression (GCLIP, arXiv 2502.06818): one abnormal channel of an MLP's output, rescaled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tagclip.clip.attention import mlp_output_norms


def suppression_scale(block: nn.Module, min_ratio: float = 1.0) -> Tensor:
    """Factors for the rows of a block's MLP output projection (c_proj.weight); its bias is left alone.

    The row with the largest L2 norm gets (mean norm of the other rows) / (its norm), all others 1. Nothing of the
    model is written: the factors go into `FrozenCLIP.run_blocks(mlp_scales=...)`.

    Args:
        block: one entry of `FrozenCLIP.blocks`.
        min_ratio: a largest row of less than this many times the others' mean norm is left alone.

    Returns:
        (width,) fp32.
    """
    norms = mlp_output_norms(block)
    row = int(norms.argmax())
    others = (norms.sum() - norms[row]) / (len(norms) - 1)
    scale = torch.ones_like(norms)
    if norms[row] >= min_ratio * others:
        scale[row] = others / norms[row]
    return scale

"""The last block's mean patch feature, and its gradient at that block's normalised input (softmax Grad-CAM).

Automatic differentiation of "block, ln_post, mean over patches" costs 12 N width^2 multiply-adds a direction and keeps
a copy of every activation for each of them. Here the backward pass is written out, because two facts make it cheap:
the gradient that enters is the same for every patch up to LayerNorm's two statistics, so the MLP's output projection is
shared by all directions; and only the gradient's mean over patches leaves, so the three input projections of the
attention act on single vectors. 5 N width^2 a direction remain. A test compares it with automatic differentiation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagclip.clip import attention
from tagclip.clip.encoder import FrozenCLIP


@dataclass(frozen=True)
class _Norm:
    """A LayerNorm's output without its affine part, and what its backward needs."""

    unit: Tensor  # (N, width), zero mean and unit variance
    scale: Tensor  # (N, 1), one over the standard deviation
    weight: Tensor  # (width,)
    bias: Tensor  # (width,)

    @classmethod
    def of(cls, tokens: Tensor, layer: nn.LayerNorm) -> _Norm:
        variance, mean = torch.var_mean(tokens, dim=-1, correction=0, keepdim=True)
        scale = (variance + layer.eps).rsqrt()
        return cls((tokens - mean) * scale, scale, layer.weight.to(tokens.dtype), layer.bias.to(tokens.dtype))

    @property
    def output(self) -> Tensor:
        return self.unit * self.weight + self.bias

    def backward(self, gradient: Tensor) -> Tensor:
        """d loss / d tokens, from d loss / d output, (N, width)."""
        gradient = gradient * self.weight
        along = (gradient * self.unit).mean(-1, keepdim=True)
        return (gradient - gradient.mean(-1, keepdim=True) - self.unit * along) * self.scale


class PooledPatches:
    """Mean over the patches of ln_post(last block), projected, with its gradient at a = ln_1(tokens).

    Everything is computed in the tokens' dtype, whatever that of the model: give float32 tokens for exact gradients of
    a half-precision model. The model is only read and needs no gradients of its own.

    Args:
        clip: any model with a LayerNorm before attention, MLP and projection.
        tokens: input of the last block for one image, (1 + N, width), [CLS] first.

    Attributes:
        normed: a, (1 + N, width).
        feature: the projected mean, (embed_dim,), not normalised.
    """

    def __init__(self, clip: FrozenCLIP, tokens: Tensor) -> None:
        visual = clip.model.visual
        self._block = block = clip.blocks[-1]
        self._dtype = tokens.dtype
        self._projection = None if visual.proj is None else self._cast(visual.proj)
        self.normed = _Norm.of(tokens, block.ln_1).output

        # [CLS] is a key and a value but never pooled, so it is no query.
        width = tokens.shape[-1]
        weight, bias = self._cast(block.attn.in_proj_weight), self._cast(block.attn.in_proj_bias)
        query = functional.linear(self.normed[1:], weight[:width], None if bias is None else bias[:width])
        joint = functional.linear(self.normed, weight[width:], None if bias is None else bias[width:])
        self._query, self._key, self._value = (
            attention.split_heads(part[None], clip.heads)[0] for part in (query, *joint.chunk(2, dim=-1))
        )  # (heads, N, head width) and twice (heads, 1 + N, head width)
        self._temperature = self._query.shape[-1] ** -0.5
        self._weights = (self._query @ self._key.mT * self._temperature).softmax(-1)  # (heads, N, 1 + N)
        self._mixed = self._weights @ self._value
        mixed = attention.merge_heads(self._mixed[None])[0]
        middle = tokens[1:] + self._scaled(self._linear(mixed, block.attn.out_proj), block.ls_1)

        self._norm_mlp = _Norm.of(middle, block.ln_2)
        hidden, self._slope = _with_slope(block.mlp.gelu, self._linear(self._norm_mlp.output, block.mlp.c_fc))
        output = middle + self._scaled(self._linear(hidden, block.mlp.c_proj), block.ls_2)
        self._norm_final = _Norm.of(output, visual.ln_post)
        pooled = self._norm_final.output.mean(0)
        self.feature = pooled if self._projection is None else pooled @ self._projection

    def gradient(self, directions: Tensor) -> Tensor:
        """Mean over patches of d (feature . direction) / d a, for each direction.

        Args:
            directions: (K, embed_dim), of the tokens' dtype.

        Returns:
            (K, width).
        """
        if self._projection is not None:
            directions = directions @ self._projection.T
        shared = self._scaled(self._norm_final.unit, self._block.ls_2) @ self._cast(self._block.mlp.c_proj.weight)
        # One direction at a time bounds the memory (the MLP's hidden layer is 4 N width) and loses no speed.
        return torch.stack([self._one_gradient(direction, shared) for direction in directions])

    def _one_gradient(self, direction: Tensor, shared: Tensor) -> Tensor:
        block, norm = self._block, self._norm_final
        patches = norm.unit.shape[0]
        entering = direction * norm.weight / patches
        entering = entering - entering.mean()
        along = (norm.unit @ entering / entering.shape[0])[:, None]
        at_output = (entering - norm.unit * along) * norm.scale

        at_hidden = (self._scaled(entering, block.ls_2) @ self._cast(block.mlp.c_proj.weight) - shared * along)
        at_hidden = at_hidden * norm.scale * self._slope
        at_middle = at_output + self._norm_mlp.backward(at_hidden @ self._cast(block.mlp.c_fc.weight))
        at_mixed = self._scaled(at_middle, block.ls_1) @ self._cast(block.attn.out_proj.weight)
        return self._attention_gradient(attention.split_heads(at_mixed[None], len(self._mixed))[0]) / patches

    def _attention_gradient(self, at_mixed: Tensor) -> Tensor:
        """Sum over patches of the gradient at a, from the gradient at the attended values (heads, N, head width).

        With dS = P * (dP - rowsum(P * dP)) the score gradient: queries need its column sums only, and, because its
        rows sum to zero, keys need its [CLS] column only. Neither needs the N x N matrix dP.
        """
        weights, value = self._weights, self._value
        row_sums = (at_mixed * self._mixed).sum(-1)  # (heads, N)
        at_value = weights.mT @ at_mixed  # (heads, 1 + N, head width)
        columns = (at_value * value).sum(-1) - (row_sums[:, None] @ weights)[:, 0]  # (heads, 1 + N)
        class_column = weights[..., 0] * ((at_mixed @ value[:, 0, :, None])[..., 0] - row_sums)  # (heads, N)
        query = (columns[:, None] @ self._key)[:, 0] * self._temperature
        key = -(class_column[:, None] @ self._query)[:, 0] * self._temperature
        joined = torch.cat([query.flatten(), key.flatten(), at_value[:, 1:].sum(1).flatten()])
        return joined @ self._cast(self._block.attn.in_proj_weight)

    def _cast(self, parameter: Tensor | None) -> Tensor | None:
        return None if parameter is None else parameter.detach().to(self._dtype)

    def _linear(self, values: Tensor, layer: nn.Linear) -> Tensor:
        return functional.linear(values, self._cast(layer.weight), self._cast(layer.bias))

    def _scaled(self, values: Tensor, layer: nn.Module) -> Tensor:
        """LayerScale if the block has it: a diagonal matrix, so forward and backward are the same."""
        return values if isinstance(layer, nn.Identity) else values * self._cast(layer.gamma)


def _with_slope(activation: nn.Module, values: Tensor) -> tuple[Tensor, Tensor]:
    """An elementwise activation and its derivative, whatever the activation."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = values.clone().requires_grad_()
        output = activation(leaf)
        (slope,) = torch.autograd.grad(output, leaf, torch.ones_like(output))
    return output.detach(), slope

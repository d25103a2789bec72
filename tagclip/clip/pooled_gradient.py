"""The last block's mean patch feature, and its gradient at that block's normalised input (softmax Grad-CAM).

Automatic differentiation of "block, ln_post, mean over patches" costs 12 N width^2 multiply-adds a direction and keeps
a copy of every activation for each of them. Here the backward pass is written out, because two facts make it cheap:
the gradient that enters is the same for every patch up to LayerNorm's two statistics, so the MLP's output projection is
shared by all directions; and only the gradient's mean over patches leaves, so the three input projections of the
attention act on single vectors. 5 N width^2 a direction remain. A test compares it with automatic differentiation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagclip.clip import attention
from tagclip.clip.encoder import FrozenCLIP
from tagclip.precision import exact_float32


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

    The model is only read and needs no gradients of its own.

    Args:
        clip: a model with LayerNorms before attention, MLP and projection.
        tokens: input of the last block for one image, (1 + N, width), [CLS] first, float32.
        product_dtype: of the operands of matrix products. float32 is exact whatever the model's dtype; the model's
            own half precision is faster. Everything else is float32 in any case.

    Attributes:
        normed: a, (1 + N, width).
        feature: the projected mean, (embed_dim,), not normalised.
    """

    @exact_float32()
    def __init__(self, clip: FrozenCLIP, tokens: Tensor, *, product_dtype: torch.dtype = torch.float32) -> None:
        visual = clip.model.visual
        self._block = block = clip.blocks[-1]
        self._dtype = product_dtype
        self._weights: dict[Tensor, Tensor] = {}
        self._projection = visual.proj
        self.normed = _Norm.of(tokens, block.ln_1).output

        # [CLS] is a key and a value but never pooled, so it is no query.
        joint = self._linear(self.normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
        query, self._key, self._value = _split(joint, 3 * clip.heads).chunk(3)  # (heads, 1 + N, d)
        self._query = query[:, 1:]
        self._temperature = self._query.shape[-1] ** -0.5
        # The largest arrays of all: scaled before the product, widened in the softmax and cast once for all products.
        logits = (self._query * self._temperature).to(self._dtype) @ self._key.mT.to(self._dtype)
        self._attention = logits.softmax(-1, dtype=torch.float32)  # (heads, N, 1 + N)
        self._attention_cast = self._attention.to(self._dtype)
        self._mixed = self._product(self._attention_cast, self._value)
        mixed = attention.merge_heads(self._mixed[None])[0]
        mixed = self._linear(mixed, block.attn.out_proj.weight, block.attn.out_proj.bias)
        middle = tokens[1:] + _layer_scaled(mixed, block.ls_1)

        self._norm_mlp = _Norm.of(middle, block.ln_2)
        first, second = block.mlp.c_fc, block.mlp.c_proj
        hidden, self._slope = _with_slope(block.mlp.gelu, self._linear(self._norm_mlp.output, first.weight, first.bias))
        output = middle + _layer_scaled(self._linear(hidden, second.weight, second.bias), block.ls_2)
        self._norm_final = _Norm.of(output, visual.ln_post)
        pooled = self._norm_final.output.mean(0)
        self.feature = pooled if self._projection is None else pooled @ self._projection.float()

    @exact_float32()
    def gradient(self, directions: Tensor) -> Tensor:
        """Mean over patches of d (feature . direction) / d a, for each direction.

        Args:
            directions: (K, embed_dim) float32, of any size: the result is linear in it.

        Returns:
            (K, width) float32.
        """
        if self._projection is not None:
            directions = directions @ self._projection.float().T
        # Tiny gradients would vanish in half precision, so directions of size 1 go through.
        sizes = directions.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(directions.dtype).tiny)
        shared = self._backward(_layer_scaled(self._norm_final.unit, self._block.ls_2), self._block.mlp.c_proj.weight)
        # One direction at a time bounds the memory (the MLP's hidden layer is 4 N width) and loses no speed.
        gradients = torch.stack([self._one_gradient(direction, shared) for direction in directions / sizes])
        return gradients * (sizes / self._norm_final.unit.shape[0] ** 2)  # both means, into the feature and out of a

    def _one_gradient(self, direction: Tensor, shared: Tensor) -> Tensor:
        """Sum over patches of the gradient of the feature's sum over patches."""
        block, norm = self._block, self._norm_final
        entering = direction * norm.weight
        entering = entering - entering.mean()
        along = (norm.unit @ entering / entering.shape[0])[:, None]
        at_output = (entering - norm.unit * along) * norm.scale

        # The MLP's output projection is linear, so it is applied to the two parts of `at_output`, not to their sum.
        at_hidden = self._backward(_layer_scaled(entering, block.ls_2), block.mlp.c_proj.weight) - shared * along
        at_hidden = self._backward(at_hidden * self._slope * norm.scale, block.mlp.c_fc.weight)
        at_middle = at_output + self._norm_mlp.backward(at_hidden)
        at_mixed = self._backward(_layer_scaled(at_middle, block.ls_1), block.attn.out_proj.weight)
        return self._attention_gradient(_split(at_mixed, len(self._mixed)))

    def _attention_gradient(self, at_mixed: Tensor) -> Tensor:
        """Sum over patches of the gradient at a, from the gradient at the attended values (heads, N, d).

        With dS = P * (dP - rowsum(P * dP)) the score gradient: queries need its column sums only, and, because its
        rows sum to zero, keys need its [CLS] column only. Neither needs the N x N matrix dP.
        """
        weights, value = self._attention, self._value
        row_sums = (at_mixed * self._mixed).sum(-1)  # (heads, N)
        at_value = self._product(self._attention_cast.mT, at_mixed)  # (heads, 1 + N, d)
        columns = (at_value * value).sum(-1) - (row_sums[:, None] @ weights)[:, 0]  # (heads, 1 + N)
        class_column = weights[..., 0] * ((at_mixed @ value[:, 0, :, None])[..., 0] - row_sums)  # (heads, N)
        query = (columns[:, None] @ self._key)[:, 0] * self._temperature
        key = -(class_column[:, None] @ self._query)[:, 0] * self._temperature
        joined = torch.cat([query.flatten(), key.flatten(), at_value[:, 1:].sum(1).flatten()])
        return self._backward(joined, self._block.attn.in_proj_weight)

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        return (left.to(self._dtype) @ right.to(self._dtype)).float()

    def _linear(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight, bias = self._cast(weight), None if bias is None else bias.to(self._dtype)
        return functional.linear(values.to(self._dtype), weight, bias).float()

    def _backward(self, gradient: Tensor, weight: Tensor) -> Tensor:
        return (gradient.to(self._dtype) @ self._cast(weight)).float()

    def _cast(self, weight: Tensor) -> Tensor:
        """A weight in the dtype of products, converted once."""
        if weight not in self._weights:
            self._weights[weight] = weight.detach().to(self._dtype)
        return self._weights[weight]


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(T, width) -> (heads, T, d)."""
    return attention.split_heads(tokens[None], heads)[0]


def _layer_scaled(values: Tensor, layer: Any) -> Tensor:
    """LayerScale if the block has it: a diagonal matrix, so forward and backward are the same."""
    return values if isinstance(layer, nn.Identity) else values * layer.gamma.float()


def _with_slope(activation: nn.Module, values: Tensor) -> tuple[Tensor, Tensor]:
    """An elementwise activation and its derivative, whatever the activation."""
    output, pull, *_ = torch.func.vjp(activation, values)
    return output, pull(torch.ones_like(output))[0]

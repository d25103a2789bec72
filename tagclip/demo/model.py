"""The demo model as a trainable module whose parameter names are OpenAI's CLIP layout.

Only training uses it (`tagclip demo train-clip`); inference loads the stored weights through ``tagclip.clip``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagclip.errors import UsageError


@dataclass(frozen=True)
class DemoArchitecture:
    """Shape of the demo model (OpenAI ViT-B/16 in small)."""

    patch: int = 16
    resolution: int = 224
    vision_width: int = 192
    vision_depth: int = 12
    vision_heads: int = 3
    text_width: int = 128
    text_depth: int = 4
    text_heads: int = 2
    embedding: int = 128
    context: int = 77

    @property
    def grid(self) -> int:
        return self.resolution // self.patch


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the activation of OpenAI's weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Self-attention with nn.MultiheadAttention's parameter names; local mode is exactly out_proj(v)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, *, causal: bool = False, local: bool = False) -> Tensor:
        b, n, width = x.shape
        if local:
            value = F.linear(x, self.in_proj_weight[2 * width :], self.in_proj_bias[2 * width :])
            return self.out_proj(value)
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        # Written out: on CPUs the fused kernel's backward pass is several times slower at these lengths.
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if causal:
            future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
            weights = weights.masked_fill(future, float("-inf"))
        mixed = weights.softmax(-1).to(v.dtype) @ v
        return self.out_proj(mixed.transpose(1, 2).reshape(b, n, width))


class Block(nn.Module):
    """Residual attention block."""

    def __init__(self, width: int, heads: int, depth: int):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        into, out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=into, gelu=QuickGELU(), c_proj=out))
        scale = width**-0.5 * (2 * depth) ** -0.5
        nn.init.normal_(self.attn.out_proj.weight, std=scale)
        nn.init.normal_(out.weight, std=scale)
        nn.init.normal_(into.weight, std=(2 * width) ** -0.5)

    def forward(self, x: Tensor, *, causal: bool = False) -> Tensor:
        return self.finish(x, self.ln_1(x), causal=causal)

    def finish(self, x: Tensor, normed: Tensor, *, causal: bool = False, local: bool = False) -> Tensor:
        """The block from its input and ln_1 of it."""
        x = x + self.attn(normed, causal=causal, local=local)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, depth) for _ in range(depth))


class Readings(NamedTuple):
    """The unit-norm features that training supervises, float32.

    Attributes:
        cls: (B, D).
        patches: local patches, whose last block attends to nothing else, (B, N, D).
        pooled: mean of the patches of the ordinary last block, (B, D).
        normed: ln_1 of that block, [CLS] first, (B, 1 + N, width), where Grad-CAM takes its gradients; not normalised.
    """

    cls: Tensor
    patches: Tensor
    pooled: Tensor
    normed: Tensor


class VisionTower(nn.Module):
    """The image tower; `forward` gives the readings that training supervises."""

    def __init__(self, arch: DemoArchitecture):
        super().__init__()
        width = arch.vision_width
        self.arch = arch
        self.conv1 = nn.Conv2d(3, width, arch.patch, arch.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(arch.grid**2 + 1, width) * 0.02)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, arch.vision_depth, arch.vision_heads)
        self.proj = nn.Parameter(torch.randn(width, arch.embedding) * width**-0.5)

    def positions(self, height: int, width: int, offset: tuple[int, int] | None) -> Tensor:
        """Positional rows for an (height, width) patch grid: a window of the native grid, or interpolated."""
        g = self.arch.grid
        grid = self.positional_embedding[1:].view(g, g, -1)
        if height <= g and width <= g and offset is not None:
            grid = grid[offset[0] : offset[0] + height, offset[1] : offset[1] + width]
        elif (height, width) != (g, g):
            grid = F.interpolate(grid.permute(2, 0, 1)[None], (height, width), mode="bilinear")[0].permute(1, 2, 0)
        return torch.cat([self.positional_embedding[:1], grid.reshape(height * width, -1)])

    def forward(self, images: Tensor, offset: tuple[int, int] | None = None) -> Readings:
        """What normalised images, (B, 3, H, W), show; see `positions` for `offset`."""
        x = self.conv1(images)
        b, _, h, w = x.shape
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(b, 1, -1).to(x.dtype), x], dim=1) + self.positions(h, w, offset)
        x = self.ln_pre(x)
        blocks: list[Any] = list(self.transformer.resblocks)
        last = blocks.pop()
        for block in blocks:
            x = block(x)
        normed = last.ln_1(x)
        ordinary, local = last.finish(x, normed), last.finish(x[:, 1:], normed[:, 1:], local=True)
        ordinary = self.ln_post(ordinary)
        read = (ordinary[:, 0], self.ln_post(local), ordinary[:, 1:].mean(1))
        cls, patches, pooled = (F.normalize((tokens @ self.proj).float(), dim=-1) for tokens in read)
        return Readings(cls, patches, pooled, normed)


class DemoCLIP(nn.Module):
    """Both towers. `rows` are the token ids that training can touch; other token rows are stored as zero.

    Args:
        arch: shape. rows: sorted token ids, (R,) int64.
    """

    rows: Tensor

    def __init__(self, arch: DemoArchitecture, rows: Tensor):
        super().__init__()
        self.arch = arch
        self.visual = VisionTower(arch)
        self.transformer = Transformer(arch.text_width, arch.text_depth, arch.text_heads)
        self.token_embedding = nn.Embedding(len(rows), arch.text_width)
        self.positional_embedding = nn.Parameter(torch.randn(arch.context, arch.text_width) * 0.01)
        self.ln_final = nn.LayerNorm(arch.text_width)
        self.text_projection = nn.Parameter(torch.randn(arch.text_width, arch.embedding) * arch.text_width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("rows", rows, persistent=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids (P, 77) -> unit-norm features (P, D). The end token has the largest id."""
        end = tokens.argmax(1)
        tokens = tokens[:, : int(end.max()) + 1].contiguous()
        x = self.token_embedding(torch.searchsorted(self.rows, tokens)) + self.positional_embedding[: tokens.shape[1]]
        for block in self.transformer.resblocks:
            x = block(x, causal=True)
        x = self.ln_final(x[torch.arange(len(x)), end]) @ self.text_projection
        return F.normalize(x.float(), dim=-1)

    def stored_state(self) -> dict[str, Tensor]:
        """The weights as they are stored: OpenAI names, float16, token rows compact (see tagclip.clip.loading)."""
        state = {name: value.detach().to(torch.float16).contiguous() for name, value in self.state_dict().items()}
        state["token_embedding.rows"] = self.rows.to(torch.int32)
        return state

    def load_stored(self, state: dict[str, Tensor]) -> None:
        """Takes weights as `stored_state` gives them.

        Raises:
            UsageError: they were trained with other names or templates, so that their token rows differ.
        """
        rows = state.get("token_embedding.rows")
        if rows is None or not torch.equal(rows.long(), self.rows.long()):
            raise UsageError("the weights' token rows are not this model's: other names or words were trained")
        self.load_state_dict({name: value.float() for name, value in state.items() if name != "token_embedding.rows"})

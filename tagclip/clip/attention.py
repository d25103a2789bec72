"""Block-level primitives of a frozen vision transformer, and the statistics of its attention maps.

These functions are all that other modules need to build their own last blocks: nothing outside this package touches the
modules of open_clip. A `block` is one entry of `FrozenCLIP.blocks`; T = 1 + N tokens, [CLS] first; d = width / heads.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import overload

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from tagclip.clip.int8 import int8_layer
from tagclip.clip.modules import Block

# Scratch memory of one attention map computation on an accelerator. On a CPU one fp32 head at a time stays in the
# cache; bfloat16 products of a single head are too small to run at full speed, so there a few heads share the cache.
ACCELERATOR_SCRATCH_BYTES = 512 * 2**20
CPU_BFLOAT16_SCRATCH_BYTES = 10 * 2**20
CPU_TEMPORARY_BYTES = 2**20
PLAIN_PRODUCT_SCORES = 2**24  # attention scores up to which plain products replace PyTorch's fused kernel, see `attend`
UNFUSED_SCORES = 2**27  # attention scores beyond which heads that no fused kernel takes go one by one, see `attend`
QUICK_GELU_SLOPE = 1.702  # QuickGELU(x) = x * sigmoid(1.702 x), Hendrycks & Gimpel, arXiv 1606.08415, section 2

logger = logging.getLogger(__name__)


def layer_norm(tokens: Tensor, norm: nn.LayerNorm | nn.Identity) -> Tensor:
    """Apply a LayerNorm (or the Identity that stands for none). Statistics are fp32 for half inputs as well."""
    if isinstance(norm, nn.Identity):
        return tokens
    return F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, T, width) -> (B, heads, T, d), a view."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(values: Tensor) -> Tensor:
    """(B, heads, T, d) -> (B, T, width)."""
    return values.transpose(1, 2).flatten(2)


def qkv_from_norm(normed: Tensor, block: Block) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one block from a = ln_1(tokens).

    Args:
        normed: (B, T, width).

    Returns:
        Three tensors (B, heads, T, d), views of one projection; the queries are not scaled by 1/sqrt(d).
    """
    projected = _scaled_linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
    q, k, v = (split_heads(part, block.attn.num_heads) for part in projected.chunk(3, dim=-1))
    return q, k, v


def qkv(tokens: Tensor, block: Block) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, T, d) of one block from its input tokens (B, T, width); applies ln_1."""
    return qkv_from_norm(layer_norm(tokens, block.ln_1), block)


def values(tokens: Tensor, block: Block) -> Tensor:
    """Only the values of one block, heads merged: (B, T, width) -> (B, T, width); applies ln_1."""
    width = tokens.shape[-1]
    bias = block.attn.in_proj_bias
    normed = layer_norm(tokens, block.ln_1)
    bias = None if bias is None else bias[2 * width :]
    return _scaled_linear(normed, block.attn.in_proj_weight[2 * width :], bias)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v with the fused kernel, so that no map is built.

    In bfloat16 on a CPU that kernel takes longer than plain products, which are used up to a size.

    Args:
        q, k, v: (B, heads, T, d); q may have fewer rows than k and v.
        bias: additive, broadcastable to (B, heads, T_q, T_k).

    Returns:
        (B, T_q, width), heads merged, before the output projection.
    """
    if bias is not None:
        bias = bias.to(q.dtype)
    few_scores = q.shape[:-1].numel() * k.shape[-2] <= PLAIN_PRODUCT_SCORES
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and few_scores and not causal:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return merge_heads((scores if bias is None else scores + bias).softmax(dim=-1) @ v)
    if q.shape[-1] != v.shape[-1] and q.shape[1] > 1 and q.shape[:-1].numel() * k.shape[-2] > UNFUSED_SCORES:
        # PyTorch's fused kernels want values as wide as keys; without them all scores would be written at once.
        parts = []
        for head in range(q.shape[1]):
            one = slice(head, head + 1)
            mask = bias if bias is None or bias.dim() < 3 or bias.shape[-3] == 1 else bias[..., one, :, :]
            parts.append(
                F.scaled_dot_product_attention(q[:, one], k[:, one], v[:, one], attn_mask=mask, is_causal=causal)
            )
        return merge_heads(torch.cat(parts, dim=1))
    return merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal))


def out_project(attended: Tensor, block: Block) -> Tensor:
    """Output projection (and layer scale, if the model has one) of attended values, (B, T, width) -> (B, T, width)."""
    projection = block.attn.out_proj
    return block.ls_1(_scaled_linear(attended, projection.weight, projection.bias))


def mlp(tokens: Tensor, block: Block, *, output_scale: Tensor | None = None) -> Tensor:
    """The MLP branch of one block with its ln_2, without the residual.

    Args:
        tokens: (B, T, width).
        output_scale: (width,) factors for the rows of c_proj.weight (not of its bias), as GCLIP's channel suppression
            needs them; the weights themselves stay as they are.
    """
    c_fc, activation, c_proj = block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj
    normed = layer_norm(tokens, block.ln_2)
    slope = 1.0
    if not isinstance(activation, QuickGELU) or (torch.is_grad_enabled() and normed.requires_grad):
        hidden = activation(_scaled_linear(normed, c_fc.weight, c_fc.bias))
    elif normed.dtype == torch.float32:
        # In place, by a temporary small enough for the cache: on CPUs fresh memory costs more than the arithmetic.
        hidden = _scaled_linear(normed, c_fc.weight, c_fc.bias)
        rows = hidden.view(-1, hidden.shape[-1])
        for part in rows.split(_rows_per_step(rows)):
            part.mul_(torch.mul(part, QUICK_GELU_SLOPE).sigmoid_())
    else:
        # x sigmoid(s x) = silu(s x) / s: one pass in place, and the factors cost the products nothing. Not in fp32,
        # where a last digit off the published order of operations can turn a vote of DMAR.
        slope = QUICK_GELU_SLOPE
        hidden = F.silu(_scaled_linear(normed, c_fc.weight, c_fc.bias, slope, slope), inplace=True)
    if output_scale is None:
        output = _scaled_linear(hidden, c_proj.weight, c_proj.bias, 1 / slope)
    else:
        output = _scaled_linear(hidden, c_proj.weight, None, 1 / slope) * output_scale.to(hidden.dtype)
        output = output if c_proj.bias is None else output + c_proj.bias
    return block.ls_2(output)


def _scaled_linear(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, alpha: float = 1.0, beta: float = 1.0
) -> Tensor:
    """alpha * inputs @ weight.T + beta * bias, rounded to the dtype only once. All linear layers of blocks go here."""
    if alpha == beta == 1:
        layer = int8_layer(weight, bias, inputs)
        if layer is not None:
            return layer(inputs)
        return F.linear(inputs, weight, bias)
    rows = inputs.flatten(0, -2)
    if bias is None:
        bias, beta = rows.new_zeros(1), 0.0
    return torch.addmm(bias, rows, weight.T, beta=beta, alpha=alpha).unflatten(0, inputs.shape[:-1])


def _rows_per_step(rows: Tensor) -> int:
    if rows.device.type != "cpu":
        return len(rows)
    return max(1, CPU_TEMPORARY_BYTES // (rows.shape[-1] * rows.element_size()))


def mlp_output_norms(block: Block) -> Tensor:
    """L2 norms of the rows of the MLP's output projection, (width,) fp32: one a channel of the residual stream."""
    return block.mlp.c_proj.weight.float().norm(dim=1)


def finish_block(tokens: Tensor, attended: Tensor, block: Block, *, output_scale: Tensor | None = None) -> Tensor:
    """Everything of a block after attention: output projection, residual, MLP, residual.

    Args:
        tokens: the block's input, (B, T, width).
        attended: attended values with heads merged, (B, T, width).
    """
    tokens = tokens + out_project(attended, block)
    return tokens + mlp(tokens, block, output_scale=output_scale)


class Scratch:
    """Memory that the blocks of one pass use one after the other: fresh memory costs a CPU a page fault every 4 KiB."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A tensor with undefined values, the one of the last call under this name if it fits."""
        found = self._tensors.get(name)
        if found is None or (tuple(found.shape), found.dtype, found.device) != (shape, dtype, device):
            found = self._tensors[name] = torch.empty(shape, dtype=dtype, device=device)
        return found


MapReceiver = Callable[[slice, Tensor], None]


@overload
def attend_with_maps(
    q: Tensor, k: Tensor, v: Tensor, receive: MapReceiver, scratch: Scratch | None = None
) -> Tensor: ...
@overload
def attend_with_maps(q: Tensor, k: Tensor, v: None, receive: MapReceiver, scratch: Scratch | None = None) -> None: ...
def attend_with_maps(
    q: Tensor, k: Tensor, v: Tensor | None, receive: MapReceiver, scratch: Scratch | None = None
) -> Tensor | None:
    """Attention that also hands out each image's head-averaged map; the softmax is computed once for both.

    Args:
        q, k: (B, heads, T, d).
        v: (B, heads, T, d), or None when only the maps are needed.
        receive: called as receive(images, maps) with a slice of the batch, on a CPU always of one image, and their maps
            (b, N, N) fp32, [CLS] row and column removed. Their memory is reused for the next images.
        scratch: of earlier calls of the same pass.

    Returns:
        (B, T, width) attended values with heads merged, or None without `v`. Runs without gradients.
    """
    batch, heads, count, size = q.shape
    kernel = _mean_map_kernel(q.device) if _suits_the_kernel(q) else None
    if kernel is not None:
        with torch.no_grad():
            receive(slice(0, batch), kernel(q, k))
            return None if v is None else attend(q, k, v)
    q, k = q.contiguous(), k.contiguous()  # or every product below would copy its heads again, at a slow stride
    v = None if v is None else v.contiguous()
    chunk = _heads_per_step(q.device, q.dtype, heads, count)
    together = _images_per_step(q.device, batch, heads, count)
    scratch = scratch or Scratch()
    scores = scratch.get("scores", (together * chunk, count, count), q.dtype, q.device)
    weights = scratch.get("weights", (together * chunk, count, count), q.dtype, q.device)
    means = scratch.get("mean", (together, count - 1, count - 1), torch.float32, q.device)
    attended = None if v is None else q.new_empty(batch, heads, count, size)
    with torch.no_grad():
        for start in range(0, batch, together):
            images = slice(start, min(start + together, batch))
            mean = means[: images.stop - start].zero_()
            for first in range(0, heads, chunk):
                part = slice(first, min(first + chunk, heads))
                queries, keys = (one[images, part].flatten(0, 1) for one in (q, k))
                used = len(queries)
                keys = keys.transpose(-1, -2)
                torch.baddbmm(scores[:used], queries, keys, beta=0, alpha=size**-0.5, out=scores[:used])
                torch.softmax(scores[:used], dim=-1, out=weights[:used])  # sums in fp32, rounds the result
                if v is not None and attended is not None:
                    _mix(weights[:used], v[images, part], attended[images, part])
                _add_heads(weights[:used].unflatten(0, (len(mean), -1)), mean)
            receive(images, mean.div_(heads))
    return None if attended is None else merge_heads(attended)


def _suits_the_kernel(q: Tensor) -> bool:
    """Half precision on a GPU; float32 stays with the products whose results the recorded arrays have judged."""
    return q.device.type == "cuda" and q.dtype != torch.float32 and q.shape[-1] in (16, 32, 64, 128)


@cache
def _mean_map_kernel(device: torch.device) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`mean_maps` if Triton runs on this device; it needs a C compiler there, for one."""
    try:
        from tagclip.clip.mean_map_kernel import mean_maps

        probe = torch.zeros(1, 1, 2, 16, dtype=torch.bfloat16, device=device)
        mean_maps(probe, probe)
    except Exception as error:  # whatever a compiler, driver or missing package may raise: the plain way works
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.info("attention maps without Triton, which takes longer: %s", reason)
        return None
    return mean_maps


def _mix(weights: Tensor, v: Tensor, out: Tensor) -> None:
    """Attended values (b, heads, T, d) into `out`, which may be a part of a larger tensor."""
    if out.is_contiguous():
        torch.bmm(weights, v.flatten(0, 1), out=out.flatten(0, 1))
    else:
        out.copy_(torch.bmm(weights, v.flatten(0, 1)).view_as(out))


def _add_heads(weights: Tensor, total: Tensor) -> None:
    """Adds (b, heads, T, T) up over its heads into `total` (b, N, N), without [CLS]."""
    patches = weights[..., 1:, 1:]
    if total.device.type == "cpu":  # in the order of the heads
        for image, sums in zip(patches, total, strict=True):
            for head in image:
                sums.add_(head)
    else:
        total.add_(patches.sum(1, dtype=total.dtype))


def _images_per_step(device: torch.device, batch: int, heads: int, count: int) -> int:
    """One on a CPU; elsewhere as many as fit with all their heads, for few large kernels cost less than many small."""
    if device.type == "cpu":
        return 1
    return max(1, min(batch, ACCELERATOR_SCRATCH_BYTES // (heads * count * count * 4)))


def _heads_per_step(device: torch.device, dtype: torch.dtype, heads: int, count: int) -> int:
    if device.type == "cpu" and dtype != torch.bfloat16:
        return 1
    scratch = CPU_BFLOAT16_SCRATCH_BYTES if device.type == "cpu" else ACCELERATOR_SCRATCH_BYTES
    return max(1, min(heads, scratch // (count * count * 4)))


class AttentionStatistics:
    """Running vote counts and mean maps over the blocks of one trunk pass; no list of maps is kept.

    Args:
        votes: count, over all blocks 1..depth, the entries above their own map's mean (TagCLIP, "DMAR").
        ranges: 1-based inclusive block ranges whose mean map is needed.
        depth, batch, count, device: number of blocks, images and patches; where the sums live.
    """

    def __init__(
        self,
        votes: bool,
        ranges: tuple[tuple[int, int], ...],
        *,
        depth: int,
        batch: int,
        count: int,
        device: torch.device,
    ):
        self.depth = depth
        shape = (batch, count, count)
        self.votes = torch.zeros(shape, dtype=torch.uint8, device=device) if votes else None
        self.affinity = {span: torch.zeros(shape, dtype=torch.float32, device=device) for span in ranges}

    def wants(self, number: int) -> bool:
        """Whether the map of block `number` (1-based) goes into any of the statistics."""
        return self.votes is not None or any(first <= number <= last for first, last in self.affinity)

    def receiver(self, number: int) -> MapReceiver:
        """What adds the maps (b, N, N) of some images, at block `number`."""

        def receive(images: slice, maps: Tensor) -> None:
            if self.votes is not None:
                # One number is summed up in another order than one of several; on a CPU it is always one.
                mean = maps.mean() if len(maps) == 1 else maps.mean((1, 2), keepdim=True)
                self.votes[images] += maps > mean
            for (first, last), total in self.affinity.items():
                if first <= number <= last:
                    total[images].add_(maps, alpha=1.0 / (last - first + 1))

        return receive

"""The frozen CLIP model as every later stage sees it: prompts -> features, images -> trunk -> patch features."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagclip.clip import attention
from tagclip.clip.int8 import are_packed
from tagclip.clip.modules import Block, OpenClipModel, Tokenizer
from tagclip.clip.text import TextEncoder
from tagclip.clip.trunk import AttentionRequest, Grid, Trunk
from tagclip.errors import UsageError
from tagclip.precision import exact_float32

PositionRounding = Literal["none", "float16_off_native", "float16"]
LastBlockMode = Literal["ordinary", "local", "masked_local"]


@dataclass(frozen=True)
class PositionInterpolation:
    """How the grid of positional embeddings is brought to another grid; as in the code of TagCLIP and CLIP-ES.

    Attributes:
        mode, align_corners, antialias: see `torch.nn.functional.interpolate`.
        size_offset: None reads the native grid at the ratio of the two sizes; a number is added to the new size first,
            so that position j reads (j + 0.5) * native / (size + offset) - 0.5. DINO's code adds 0.1 against rounding.
        keep_at_native_count: leave the positions alone on every grid with as many patches as the native one, whatever
            its shape.
    """

    mode: str = "bilinear"
    align_corners: bool | None = False
    antialias: bool = False
    size_offset: float | None = None
    keep_at_native_count: bool = False


# Quirks of most training-free methods' code, which is DINO's: SC-CLIP, ResCLIP, CLIPtrase, PEARL and NACLIP.
DINO_POSITIONS = PositionInterpolation("bicubic", size_offset=0.1, keep_at_native_count=True)


@dataclass(frozen=True)
class LocalMask:
    """Additive mask of TagCLIP's last block in its published form: `off_diagonal` everywhere but on the diagonal."""

    off_diagonal: float = -100.0


class FrozenCLIP(nn.Module):
    """A plain ViT CLIP whose blocks are walked by this class; the open_clip modules inside are only read.

    Use `tagclip.clip.load_clip` to make one. The given model is taken over: its parameters are frozen, cast and moved.
    What is computed in float32 is float32 on every device, see `tagclip.precision`.

    Attributes:
        name: what the model was loaded as, for messages and cache keys.
        patch_size, depth, width, heads, embed_dim: architecture of the vision tower.
        native_grid: the patch grid that the positional embeddings were trained on.
        mean, std: per-channel normalisation that images in [0, 1] need.
        logit_scale: exponentiated, as logits use it.
        weights_digest: sha256 hex of all parameters as fp32, equal for every file layout and compute dtype.
        architecture: the numbers above and the activation as one word, for logs and cache keys.
        blocks: the residual attention blocks, block number l at index l - 1, for `tagclip.clip.attention`.
    """

    def __init__(
        self,
        model: OpenClipModel,
        tokenizer: Tokenizer,
        *,
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        interpolation: PositionInterpolation | None = None,
        local_mask: LocalMask | None = None,
    ):
        super().__init__()
        self.name = name
        self.mean, self.std = _three(mean), _three(std)
        self.interpolation = interpolation or PositionInterpolation()
        self.local_mask = local_mask or LocalMask()
        self.weights_digest = parameters_digest(model)
        self.logit_scale = float(model.logit_scale.detach().float().exp())

        visual = model.visual
        self.patch_size = int(visual.conv1.kernel_size[0])
        self.depth = len(visual.transformer.resblocks)
        self.width = int(visual.conv1.out_channels)
        self.heads = int(visual.transformer.resblocks[0].attn.num_heads)
        self.embed_dim = int(self.width if visual.proj is None else visual.proj.shape[1])
        self.native_grid = Grid(*visual.grid_size)
        # Positions stay fp32 beside the cast model: they are interpolated before they are rounded to the compute dtype.
        self.register_buffer("_positions", visual.positional_embedding.detach().float().clone(), persistent=False)
        self.model = model.to(device=device, dtype=dtype).requires_grad_(False)
        self._positions: Tensor = self._positions.to(device)
        self._text = TextEncoder(model, tokenizer)
        activation = type(visual.transformer.resblocks[0].mlp.gelu).__name__
        self.architecture = (
            f"patch{self.patch_size}-depth{self.depth}-width{self.width}-heads{self.heads}"
            f"-grid{self.native_grid.height}x{self.native_grid.width}-embed{self.embed_dim}-{activation}"
        )
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.model.visual.class_embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.visual.class_embedding.dtype

    @property
    def number_format(self) -> str:
        """What it computes in, for provenance: "int8" if the blocks' linear layers are, else the name of `dtype`."""
        return "int8" if are_packed(self.blocks) else str(self.dtype).removeprefix("torch.")

    @property
    def blocks(self) -> Sequence[Block]:
        return self.model.visual.transformer.resblocks

    @property
    def context_length(self) -> int:
        return self._text.context_length

    def train(self, mode: bool = True) -> "FrozenCLIP":
        """Stay in evaluation mode whatever a surrounding module asks for."""
        return super().train(False)

    @exact_float32()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Features of prompts.

        Returns:
            (P, embed_dim) fp32, unit norm, in the order given.

        Raises:
            VocabularyError: a prompt does not fit into the text tower's context.
        """
        prompts = [prompts] if isinstance(prompts, str) else prompts
        if not len(prompts):
            return torch.empty(0, self.embed_dim, device=self.device)
        return self._text(prompts, self.device)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise VocabularyError, as `encode_text` would, for a prompt that does not fit; encodes nothing."""
        if len(prompts):
            self._text.tokenize(prompts)

    @torch.no_grad()
    @exact_float32()
    def trunk(
        self,
        images: Tensor,
        request: AttentionRequest | None = None,
        *,
        position_rounding: PositionRounding = "none",
        stop: int | None = None,
        interpolation: PositionInterpolation | None = None,
    ) -> Trunk:
        """Run blocks 1..L-1 and collect what `request` asks of the attention maps of blocks 1..L.

        Args:
            images: normalised, (B, 3, H, W), sides multiples of the patch size; any float dtype.
            position_rounding: whether interpolated positional embeddings pass through float16, as in the published
                implementations: never, only where the grid is not the native one (tagging), or always (CAMs).
            stop: run only the blocks before this one (1..L), for callers that continue from `kept` themselves; the
                trunk's tokens are then this block's input, and nothing is collected from it or later blocks.
            interpolation: of the positional embeddings, in the place of the model's own.

        Raises:
            UsageError: sides that are no multiples of the patch size, or block numbers out of range.
        """
        request = request or AttentionRequest()
        self._check_request(request)
        if stop is not None and not 1 <= stop <= self.depth:
            raise UsageError(f"block {stop} to stop at: {self.name} has blocks 1..{self.depth}")
        tokens, grid = self._embed(images, position_rounding, interpolation)
        statistics = attention.AttentionStatistics(
            request.votes,
            request.ranges,
            depth=self.depth,
            batch=tokens.shape[0],
            count=grid.count,
            device=tokens.device,
        )
        kept, scratch = {}, attention.Scratch()
        for number, block in enumerate(self.blocks, start=1):
            if number in request.keep:
                kept[number] = tokens
            if number == stop:
                break
            mapped = statistics.wants(number)
            if number == self.depth:
                if mapped:
                    q, k, _ = attention.qkv(tokens, block)
                    attention.attend_with_maps(q, k, None, statistics.receiver(number), scratch)
                break
            q, k, v = attention.qkv(tokens, block)
            if mapped:
                attended = attention.attend_with_maps(q, k, v, statistics.receiver(number), scratch)
            else:
                attended = attention.attend(q, k, v)
            tokens = attention.finish_block(tokens, attended, block)
        return Trunk(tokens, grid, statistics.votes, statistics.affinity, kept)

    @exact_float32()
    def last_block(self, tokens: Tensor, mode: LastBlockMode = "ordinary") -> Tensor:
        """The last block in one of its forms, with residuals and MLP.

        Args:
            tokens: input of the last block, (B, 1 + N, width).
            mode: "ordinary" attention; "local", where every token attends only to itself, exactly out_proj(v);
                "masked_local", the same by an additive mask as in TagCLIP's published code.
        """
        block = self.blocks[-1]
        if mode == "local":
            return attention.finish_block(tokens, attention.values(tokens, block), block)
        bias = None
        if mode == "masked_local":
            count = tokens.shape[1]
            bias = tokens.new_full((count, count), self.local_mask.off_diagonal).fill_diagonal_(0.0)
        elif mode != "ordinary":
            raise UsageError(f"last block mode {mode!r}: use 'ordinary', 'local' or 'masked_local'")
        return attention.finish_block(tokens, attention.attend(*attention.qkv(tokens, block), bias), block)

    @exact_float32()
    def run_blocks(
        self,
        tokens: Tensor,
        first: int,
        last: int,
        *,
        bias: Tensor | None = None,
        mlp_scales: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """Ordinary blocks first..last (1-based, inclusive).

        Args:
            tokens: input of block `first`, (B, 1 + N, width).
            bias: additive attention bias in every block, (B | 1, 1 | heads, 1 + N, 1 + N).
            mlp_scales: block number -> (width,) factors for the rows of its MLP output projection.

        Returns:
            Output of block `last`, (B, 1 + N, width).
        """
        if not 1 <= first <= self.depth or not last <= self.depth:
            raise UsageError(f"blocks {first}..{last}: {self.name} has blocks 1..{self.depth}")
        for number in range(first, last + 1):
            block = self.blocks[number - 1]
            attended = attention.attend(*attention.qkv(tokens, block), bias)
            scale = None if mlp_scales is None else mlp_scales.get(number)
            tokens = attention.finish_block(tokens, attended, block, output_scale=scale)
        return tokens

    @exact_float32()
    def project(self, tokens: Tensor) -> Tensor:
        """ln_post, then the projection: (..., width) -> (..., embed_dim), not normalised."""
        visual = self.model.visual
        normed = attention.layer_norm(tokens, visual.ln_post)
        return normed if visual.proj is None else normed @ visual.proj

    @torch.no_grad()
    @exact_float32()
    def encode_masked(
        self,
        images: Tensor,
        patch_masks: Tensor,
        *,
        bias: float = -1000.0,
        position_rounding: PositionRounding = "none",
    ) -> Tensor:
        """[CLS] features of crops in which [CLS] sees, in all blocks, only the patches of a mask (TagCLIP, "CWR").

        Args:
            images: normalised crops, (M, 3, S, S).
            patch_masks: (M, n, n) bool, n = S / patch_size.
            bias: added to the attention scores of the [CLS] row at patches outside the mask; other rows are free.

        Returns:
            (M, embed_dim) fp32, unit norm.
        """
        tokens, grid = self._embed(images, position_rounding)
        if patch_masks.shape != (images.shape[0], grid.height, grid.width):
            raise UsageError(
                f"patch masks of shape {tuple(patch_masks.shape)} do not fit {images.shape[0]} crops "
                f"of {grid.height} x {grid.width} patches"
            )
        outside = ~patch_masks.to(device=tokens.device, dtype=torch.bool).flatten(1)
        row = tokens.new_zeros(tokens.shape[0], 1, 1, tokens.shape[1])
        row[:, 0, 0, 1:] = outside.to(tokens.dtype) * bias
        return self._class_feature(tokens, row)

    def positions(
        self, grid: Grid, rounding: PositionRounding = "none", interpolation: PositionInterpolation | None = None
    ) -> Tensor:
        """Positional embeddings for a grid, [CLS] first, (1 + N, width) fp32; interpolated as the model says or so."""
        if rounding not in ("none", "float16_off_native", "float16"):
            raise UsageError(f"position_rounding {rounding!r}: use 'none', 'float16_off_native' or 'float16'")
        positions, way = self._positions, interpolation or self.interpolation
        native = self.native_grid
        if grid != native and not (way.keep_at_native_count and grid.count == native.count):
            patches = positions[1:].T.reshape(1, self.width, native.height, native.width)
            sizes: dict[str, Any] = {"size": (grid.height, grid.width)}
            if way.size_offset is not None:
                pairs = ((grid.height, native.height), (grid.width, native.width))
                sizes = {"scale_factor": tuple((size + way.size_offset) / old for size, old in pairs)}
            patches = F.interpolate(
                patches, **sizes, mode=way.mode, align_corners=way.align_corners, antialias=way.antialias
            )
            positions = torch.cat([positions[:1], patches.flatten(2)[0].T])
        if rounding == "float16" or (rounding == "float16_off_native" and grid != self.native_grid):
            positions = positions.half().float()
        return positions

    def _embed(
        self, images: Tensor, rounding: PositionRounding, interpolation: PositionInterpolation | None = None
    ) -> tuple[Tensor, Grid]:
        height, width = images.shape[-2:]
        size = self.patch_size
        if images.ndim != 4 or height % size or width % size or not height or not width:
            raise UsageError(
                f"images of shape {tuple(images.shape)}: {self.name} needs (B, 3, H, W) with sides that are multiples "
                f"of its patch size {size}"
            )
        visual = self.model.visual
        grid = Grid(height // size, width // size)
        images = images.to(device=self.device, dtype=self.dtype)
        patches = F.conv2d(images, visual.conv1.weight, visual.conv1.bias, stride=size).flatten(2).transpose(1, 2)
        first = visual.class_embedding.expand(images.shape[0], 1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.positions(grid, rounding, interpolation).to(self.dtype)
        return attention.layer_norm(tokens, visual.ln_pre), grid

    def _class_feature(self, tokens: Tensor, row_bias: Tensor) -> Tensor:
        """[CLS] feature; `row_bias` (B, 1, 1, 1 + N) is added to the [CLS] row's scores in every block."""
        for number, block in enumerate(self.blocks, start=1):
            q, k, v = attention.qkv(tokens, block)
            first_row = attention.attend(q[:, :, :1], k, v, row_bias)
            if number == self.depth:  # nothing but [CLS] is read after the last block
                tokens, attended = tokens[:, :1], first_row
            else:
                attended = attention.attend(q, k, v)
                attended[:, :1] = first_row
            tokens = attention.finish_block(tokens, attended, block)
        return F.normalize(self.project(tokens[:, 0]).float(), dim=-1)

    def _check_request(self, request: AttentionRequest) -> None:
        for first, last in request.ranges:
            if not 1 <= first <= last <= self.depth:
                raise UsageError(f"attention range {first}..{last}: {self.name} has blocks 1..{self.depth}")
        for number in request.keep:
            if not 1 <= number <= self.depth:
                raise UsageError(f"block {number} to keep: {self.name} has blocks 1..{self.depth}")


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def parameters_digest(model: nn.Module) -> str:
    """sha256 hex of all parameters as little-endian fp32, by canonical name: independent of file layout and dtype."""
    digest = hashlib.sha256()
    for name, values in _canonical_parameters(model):
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.detach().cpu().float().contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


def _canonical_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    # CustomTextCLIP keeps under "text." what CLIP keeps at the top.
    named = {name.removeprefix("text."): values for name, values in model.named_parameters()}
    for name in sorted(named):
        yield name, named[name]

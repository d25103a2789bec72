"""resclip: the middle blocks' cross-correlation in the last block's attention, and a second pass told of the first."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from tagclip.clip import DINO_POSITIONS, attention
from tagclip.errors import UsageError
from wsss.dense.attention import patch_gaussian
from wsss.dense.semantic_feedback import NO_LABEL, FeedbackConfig, feedback_bias, first_answer, label_grid
from wsss.dense.strategy import Needs, Strategy

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP, Trunk

# What each base's last block attends by, and whether it keeps its residual and MLP.
PAIRS = {
    "naclip": (("k", "k"),),
    "clearclip": (("q", "q"),),
    "sclip": (("q", "q"), ("k", "k")),
    "clip": (("q", "k"),),
}
KEEPS_THE_REST = ("sclip", "clip")


@dataclass(frozen=True)
class ResclipOptions:
    """Constants of ResCLIP. Without its two parts it is the base, bit for bit.

    Attributes:
        base: strategy whose last block both parts are plugged into; the published method's is naclip.
        std: standard deviation of naclip's Gaussian, in patches; 0: none.
        use_rcs: blend the base's attention with the mean softmax(QK) of middle blocks.
        rcs_weight (lambda_r): share of that mean; rcs_scale (tau_r): factor of the mixture.
        blocks: first and last block (inclusive) of the mean; None: 6..9 on ViT-B/16 and the same relative depth
            elsewhere (ours).
        use_sfr: run the last block a second time, told what the first pass made of the patches. Features then depend
            on the words; without any they are those of the first pass.
        feedback: constants of that second part.
        dino_positions: quirk, see `tagclip.clip.encoder.DINO_POSITIONS`.
    """

    base: Literal["naclip", "clearclip", "sclip", "clip"] = "naclip"
    std: float = 5.0
    use_rcs: bool = True
    rcs_weight: float = 0.4
    rcs_scale: float = 2.0
    blocks: tuple[int, int] | None = None
    use_sfr: bool = True
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    dino_positions: bool = False


def needs(options: ResclipOptions, depth: int) -> Needs:
    """The inputs of the averaged blocks."""
    if options.base not in PAIRS:
        raise UsageError(f"resclip: base {options.base!r}; choose from {', '.join(PAIRS)}")
    first, last = options.blocks or (depth // 2, depth * 3 // 4)
    keep = tuple(range(first, last + 1)) if options.use_rcs else ()
    return Needs(keep=keep, positions=DINO_POSITIONS if options.dino_positions else None)


def features(clip: FrozenCLIP, trunk: Trunk, options: ResclipOptions) -> Tensor:
    """Patch features of the first pass."""
    return last_block(clip, trunk, options, None)


def feedback(
    clip: FrozenCLIP, trunk: Trunk, image: Tensor | None, rows: Tensor, options: ResclipOptions
) -> Tensor | None:
    """Patch features of the second pass of one image, told what words the first found where."""
    if not options.use_sfr:
        return None
    first = torch.nn.functional.normalize(features(clip, trunk, options)[0].float(), dim=-1)
    labels = first_labels(clip, trunk, image, first @ rows.T, options.feedback)
    return features_of_labels(clip, trunk, labels, options)


def first_labels(
    clip: FrozenCLIP, trunk: Trunk, image: Tensor | None, cosines: Tensor, config: FeedbackConfig
) -> Tensor:
    """The word of every patch after the first pass, (h, w) int64, from cosines (N, Q)."""
    grid = (trunk.grid.height, trunk.grid.width)
    maps = cosines.T.unflatten(1, grid)
    answer = first_answer(maps, image, (grid[0] * clip.patch_size, grid[1] * clip.patch_size), config)
    threshold = len(maps) ** -0.5 if config.threshold is None else config.threshold
    return label_grid(answer, clip.patch_size, threshold, 0 if config.doubtful_is_first else NO_LABEL)


def features_of_labels(clip: FrozenCLIP, trunk: Trunk, labels: Tensor, options: ResclipOptions) -> Tensor:
    """Patch features of the second pass, (N, D), from the labels of the patches, (h, w)."""
    return last_block(clip, trunk, options, feedback_bias(labels, options.feedback))[0]


def last_block(clip: FrozenCLIP, trunk: Trunk, options: ResclipOptions, told: Tensor | None) -> Tensor:
    """Patch features, (B, N, D), not of unit norm.

    Args:
        told: added to the logits of the base's attention, which are scaled down for it, (1 + N, 1 + N), or None.
    """
    tokens, block, grid = trunk.tokens, clip.blocks[-1], trunk.grid
    q, k, v = attention.qkv(tokens, block)
    parts = {"q": q, "k": k}
    bias, factor = None, 1.0
    if options.base == "naclip" and options.std > 0:
        bias = patch_gaussian(grid.height, grid.width, options.std, device=k.device, dtype=k.dtype)
    if told is not None:
        bias = told.to(k.dtype) if bias is None else bias.add_(told)
        factor = options.feedback.scale * (1 - options.feedback.weight)
    mixed = reduce(
        operator.add,
        (
            attention.attend(parts[left] if told is None else factor * parts[left], parts[right], v, bias)
            for left, right in PAIRS[options.base]
        ),
    )
    if options.use_rcs:
        earlier = [
            attention.qkv(trunk.kept[number], clip.blocks[number - 1])[:2]
            for number in needs(options, clip.depth).keep
        ]
        crossed = sum(attention.attend(*pair, v) for pair in earlier) / len(earlier)
        mixed = options.rcs_scale * ((1 - options.rcs_weight) * mixed + options.rcs_weight * crossed)
    output = attention.out_project(mixed, block)
    if options.base in KEEPS_THE_REST:
        output = tokens + output
        output = output + attention.mlp(output, block)
    return clip.project(output[:, 1:])


STRATEGY = Strategy(
    "resclip",
    options=ResclipOptions(),
    needs=needs,
    features=features,
    feedback=feedback,
    reference={
        "dino_positions": True,
        "feedback": {
            "path_check": "code", "half_precision": True, "doubtful_is_first": True,
            "pamr": {"dilations": (8, 16), "centre_per_dilation": True},
        },
    },
    source="ResCLIP, arXiv 2411.15851, sections 3.2 and 3.3",
)  # fmt: skip

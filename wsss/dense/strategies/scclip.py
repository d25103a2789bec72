"""scclip: anomalous tokens repaired, features and attention calibrated by middle blocks, levels fused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tagclip.clip import DINO_POSITIONS, attention
from wsss.dense.anomalies import find_outliers, outlier_scores, repair_outliers
from wsss.dense.calibration import attend_alike, average_alike, unit_rows
from wsss.dense.strategy import Needs, Strategy

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP, Trunk


@dataclass(frozen=True)
class ScclipOptions:
    """Constants of SC-CLIP. With all five parts off it is naclip without its Gaussian.

    Attributes:
        repair: replace anomalous patch tokens before the last block.
        feature_calibration: average the tokens over patches that are alike in block `alike_block`.
        attention_calibration: mix attention by that likeness into the key-key attention of the last block, among
            patches only, and add [CLS]'s token.
        post_calibration: average the last block's output over patches that are alike in block `post_block`.
        multi_level: add the last block's output for the sum of the levels' tokens.
        neighbours, contamination: of the local outlier factor, and the share of tokens that are anomalous.
        threshold (beta): cosines below it count as 0.
        sharpness: of attention by likeness.
        class_share: share of [CLS]'s token that every patch gets.
        alike_block, post_block: outputs that say what is alike; None: 9 and 4 on ViT-B/16 and the same relative
            depth elsewhere (ours: the publication gives ViT-B/16 only).
        levels: first and last block whose outputs are summed; None: 4 and 10, scaled likewise.
        distance_floor: see `outlier_scores`.
        rows_by_height: quirk, see `repair_outliers`.
        dino_positions: quirk, see `tagclip.clip.encoder.DINO_POSITIONS`.
    """

    repair: bool = True
    feature_calibration: bool = True
    attention_calibration: bool = True
    post_calibration: bool = True
    multi_level: bool = True
    neighbours: int = 30
    contamination: float = 0.05
    threshold: float = 0.4
    sharpness: float = 3.0
    class_share: float = 0.3
    alike_block: int | None = None
    post_block: int | None = None
    levels: tuple[int, int] | None = None
    distance_floor: float = 1e-12
    rows_by_height: bool = False
    dino_positions: bool = False


def blocks(options: ScclipOptions, depth: int) -> tuple[int, int, range]:
    """Blocks whose outputs say what is alike, before and after the last one, and those that are fused."""
    first, last = options.levels or (max(1, depth // 3), max(1, depth * 5 // 6))
    alike, post = options.alike_block or max(1, depth * 3 // 4), options.post_block or max(1, depth // 3)
    return alike, post, range(first, last + 1)


def needs(options: ScclipOptions, depth: int) -> Needs:
    """The outputs of those blocks, which are the inputs of the next ones."""
    alike, post, levels = blocks(options, depth)
    wanted = {post} if options.post_calibration else set()
    wanted |= {alike} if options.feature_calibration or options.attention_calibration else set()
    wanted |= set(levels) if options.multi_level else set()
    positions = DINO_POSITIONS if options.dino_positions else None
    return Needs(keep=tuple(sorted(number + 1 for number in wanted)), positions=positions)


def features(clip: FrozenCLIP, trunk: Trunk, options: ScclipOptions) -> Tensor:
    """Patch features of a batch, image by image."""
    outputs = {number - 1: tokens for number, tokens in trunk.kept.items()}
    found = []
    for index, tokens in enumerate(trunk.tokens):
        earlier = {number: output[index] for number, output in outputs.items()}
        found.append(one_image_tokens(clip, trunk, tokens, earlier, options))
    return clip.project(torch.stack(found))


def one_image_tokens(
    clip: FrozenCLIP, trunk: Trunk, tokens: Tensor, earlier: dict[int, Tensor], options: ScclipOptions
) -> Tensor:
    """Patch tokens of one image after everything, (N, width), from the last block's input and earlier outputs."""
    alike, post, levels = blocks(options, clip.depth)
    patches, grid = tokens[1:], (trunk.grid.height, trunk.grid.width)
    outliers = tokens.new_zeros(0, dtype=torch.long)
    if options.repair:
        scores = outlier_scores(patches, options.neighbours, options.distance_floor)
        outliers = find_outliers(scores, options.contamination)
        patches = repair_outliers(patches, outliers, *grid, rows_by_height=options.rows_by_height)
    likeness = None
    if options.feature_calibration or options.attention_calibration:
        seen = repair_outliers(earlier[alike][1:], outliers, *grid, rows_by_height=options.rows_by_height)
        likeness = unit_rows(seen).to(patches.dtype)
    if options.feature_calibration and likeness is not None:
        patches = average_alike(patches, likeness, options.threshold)
    attentive = likeness if options.attention_calibration else None
    result = last_block(clip, torch.cat([tokens[:1], patches]), attentive, options)
    after = unit_rows(earlier[post][1:]).to(result.dtype) if options.post_calibration else None
    if after is not None:
        result = average_alike(result, after, options.threshold)
    if options.multi_level:
        total = sum(earlier[number] for number in levels)
        assert isinstance(total, Tensor)  # there is at least one level
        fused = last_block(clip, total, attentive, options)
        result = result + (fused if after is None else average_alike(fused, after, options.threshold))
    return result


def last_block(clip: FrozenCLIP, tokens: Tensor, likeness: Tensor | None, options: ScclipOptions) -> Tensor:
    """The last block's attention alone, without residual and MLP: patch tokens, (1 + N, width) -> (N, width).

    Args:
        likeness: unit-norm tokens that say what is alike, (N, width); None: key-key attention over all tokens.
    """
    block = clip.blocks[-1]
    _, k, v = attention.qkv(tokens[None], block)
    if likeness is None:
        return attention.out_project(attention.attend(k, k, v), block)[0, 1:]
    k, v = k[:, :, 1:], v[:, :, 1:]
    mixed = (attend_alike(attention.merge_heads(v)[0], likeness, options.sharpness) + attention.attend(k, k, v)) / 2
    return attention.out_project(mixed, block)[0] + options.class_share * tokens[0]


STRATEGY = Strategy(
    "scclip",
    options=ScclipOptions(),
    needs=needs,
    features=features,
    reference={"distance_floor": 0.0, "rows_by_height": True, "dino_positions": True},
    source="SC-CLIP, arXiv 2411.15869",
)

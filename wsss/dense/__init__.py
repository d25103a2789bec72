"""Training-free dense prediction with a frozen CLIP: one interface, one small file per published strategy.

`dense_features(clip, image, strategy)` gives patch features, `DenseSegmenter` label maps. Adding a strategy is adding
one file: see docs/dense.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsss.dense.strategy import Context, Needs, Strategy, get_strategy, strategy_names

if TYPE_CHECKING:
    from torch import Tensor

    from tagclip.clip.encoder import FrozenCLIP

__all__ = ["Context", "Needs", "Strategy", "dense_features", "get_strategy", "strategy_names"]


def dense_features(
    clip: FrozenCLIP,
    image: Any,
    strategy: str | Strategy = "gclip",
    *,
    preset: str = "default",
    rows: Tensor | None = None,
    max_long_side: int | None = None,
    **options: Any,
) -> Tensor:
    """Patch features of one image under a strategy.

    Args:
        clip: the frozen model.
        image: path, PIL image, (H, W, 3) uint8 RGB array, or a normalised (3, H, W) tensor whose sides are multiples
            of the patch size.
        strategy: name, path of a strategy file, or a `Strategy`.
        preset: "default", or "reference" with the quirks of the method's published code.
        rows: unit-norm text rows of the words that compete, (Q, D), for strategies whose features depend on them
            (resclip); without them those of their first pass, which knows no words, are returned.
        max_long_side: cap on the longer side in pixels; None keeps the native resolution.
        options: constants of the strategy that differ from its own.

    Returns:
        (N, D) fp32, unit norm, patches in row-major order.

    Raises:
        UsageError: unknown strategy or option.
        ImageError: a file that cannot be read as an image.
    """
    import torch

    from tagclip.images import decode_image, prepare_image
    from wsss.dense.features import features_after_feedback, image_features, prepared

    if not isinstance(image, torch.Tensor):
        image = prepare_image(
            decode_image(image), clip.patch_size, clip.mean, clip.std, max_long_side=max_long_side
        )
    images = image[None].to(clip.device)
    ready = prepared(clip, images, get_strategy(strategy, options, preset))
    features, trunk = image_features(clip, images, ready)
    if rows is not None:
        told = features_after_feedback(clip, trunk, images, rows.to(clip.device), ready)
        features = features if told is None else told
    return features[0]

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
    max_long_side: int | None = None,
    **options: Any,
) -> Tensor:
    """Patch features of one image under a strategy.

    Args:
        clip: the frozen model.
        image: path, PIL image, (H, W, 3) uint8 RGB array, or a normalised (3, H, W) tensor whose sides are multiples
            of the patch size.
        strategy: name, path of a strategy file, or a `Strategy`.
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
    from wsss.dense.features import image_features

    if not isinstance(image, torch.Tensor):
        image = prepare_image(
            decode_image(image), clip.patch_size, clip.mean, clip.std, max_long_side=max_long_side
        )
    return image_features(clip, image[None].to(clip.device), get_strategy(strategy, options))[0][0]

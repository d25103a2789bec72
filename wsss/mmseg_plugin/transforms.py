"""Reading images for training exactly as stages one and two read them."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from tagclip.images import decode_image


@TRANSFORMS.register_module()
class LoadUprightImage(BaseTransform):
    """Loads `img_path` with the decoder of stage one, so that image and pseudo mask always agree.

    mmcv's own loader differs on rotated, palette, 16-bit and CMYK files. The array is BGR, as mmseg's preprocessors
    expect. Adds `img` (H, W, 3) uint8, `img_shape` and `ori_shape`, both (H, W).

    Args:
        apply_exif: whether photos are turned upright; False for masks made with the reference preset.
    """

    def __init__(self, apply_exif: bool = True) -> None:
        self.apply_exif = apply_exif

    def transform(self, results: dict) -> dict:
        rgb = decode_image(results["img_path"], apply_exif=self.apply_exif)
        results["img"] = np.ascontiguousarray(rgb[:, :, ::-1])
        results["img_shape"] = results["ori_shape"] = rgb.shape[:2]
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(apply_exif={self.apply_exif})"

"""Reading images and masks for training exactly as stages one and two read and write them."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from PIL import Image

from tagclip.errors import UsageError
from tagclip.images import decode_image
from wsss.files.mask_files import read_mask


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


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Loads `seg_map_path` as label ids of up to 16 bits; mmseg's `LoadAnnotations` casts them to 8.

    Adds `gt_seg_map` (H, W) uint16. Ids are taken as they are; 65535 is what configs of more than 255 labels ignore.

    Raises:
        UsageError: a data set with `reduce_zero_label`. ImageError: a file that is no label map.
    """

    def transform(self, results: dict) -> dict:
        if results.get("reduce_zero_label"):
            raise UsageError("LoadLabelMap takes ids as they are: set reduce_zero_label=False in the data set")
        labels = read_mask(results["seg_map_path"]).astype(np.uint16)
        stored = read_mask(results["seg_map_path"]).astype(np.uint16)
        labels = stored.copy()
        for old, new in (results.get("label_map") or {}).items():
            labels[stored == old] = new
        results["gt_seg_map"] = labels
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@TRANSFORMS.register_module()
class ResizeCentreCrop(BaseTransform):
    """Resizes image and label map to a short side of `size` pixels and keeps the square in the middle of both.

    Some methods publish figures on such squares (CLIPtrase): what lies outside is then not scored. `ori_shape` becomes
    the square's. Images are resized bicubically with antialiasing, labels by the nearest pixel.

    Args:
        size: side of the square in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def transform(self, results: dict) -> dict:
        results["img"] = self._square(results["img"], Image.Resampling.BICUBIC)
        for key in results.get("seg_fields", []):
            results[key] = self._square(results[key], Image.Resampling.NEAREST)
        results["img_shape"] = results["ori_shape"] = results["img"].shape[:2]
        return results

    def _square(self, values: np.ndarray, way: Image.Resampling) -> np.ndarray:
        height, width = values.shape[:2]
        short = min(height, width)
        height, width = (self.size if side == short else side * self.size // short for side in (height, width))
        resized = np.array(Image.fromarray(values).resize((width, height), way))
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return np.ascontiguousarray(resized[top : top + self.size, left : left + self.size])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"

"""Reading images and masks for training exactly as stages one and two read and write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from PIL import Image

from tagclip.images import decode_image
from wsss.files.mask_files import IGNORE_8_BIT, IGNORE_16_BIT, read_mask, with_ignored_value


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
    """Loads `seg_map_path` as every other command reads masks: 1 to 16 bits, palette or grey, ids as they are stored.

    mmseg's `LoadAnnotations` casts ids to 8 bits, and takes what Pillow makes of grey ones of 2 and 4 bits: 0 to 255.

    Adds `gt_seg_map` (H, W), uint8, or uint16 where the file or `ignore_index` needs it. The data set's
    `reduce_zero_label` and `label_map` have the effect that they have in mmseg.

    Args:
        ignore_index: label of pixels that do not count, 255, or 65535 of more labels than 255. A mask of 16 bits may
            say 65535 where 8 bits would say 255.

    Raises:
        ImageError: a file that is no label map.
    """

    def __init__(self, ignore_index: int = IGNORE_16_BIT) -> None:
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        stored = with_ignored_value(read_mask(Path(results["seg_map_path"])), self.ignore_index)
        if self.ignore_index > IGNORE_8_BIT:
            stored = stored.astype(np.uint16)
        if results.get("reduce_zero_label"):
            ignored = (stored == 0) | (stored == self.ignore_index)
            stored = np.where(ignored, self.ignore_index, stored - 1).astype(stored.dtype)
        labels = stored.copy()
        for old, new in (results.get("label_map") or {}).items():
            labels[stored == old] = new
        results["gt_seg_map"] = labels
        results.setdefault("seg_fields", []).append("gt_seg_map")
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(ignore_index={self.ignore_index})"


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

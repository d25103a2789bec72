"""How sure a mask is of each pixel, on disk: grey PNGs of 8 bits, `confidence/<id>.png`."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tagclip.errors import ImageError
from tagclip.stored_files import FilePlace
from wsss.files.mask_files import mask_header, read_mask

STEPS = 255


def encode_confidence(confidence: np.ndarray) -> bytes:
    """Probabilities as a grey PNG of 8 bits.

    Args:
        confidence: probability of each pixel's most probable label, (H, W) float in [0, 1]; what lies outside is
            clipped.

    Returns:
        The bytes of the file, whose values are round(255 p), half to even: p is kept to within 1 / 510. The same array
        always gives the same bytes.
    """
    steps = np.rint(np.clip(confidence, 0, 1) * STEPS).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(steps)).save(buffer, format="PNG")
    return buffer.getvalue()


def read_confidence(path: FilePlace) -> np.ndarray:
    """What `encode_confidence` wrote, as probabilities: value / 255.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        ImageError: no such file, damaged, or not a grey PNG of 8 bits.
    """
    header = mask_header(path)
    if header.is_palette or header.bits != 8:
        raise ImageError(f"{path}: not a grey PNG of 8 bits, so no confidence of a mask")
    return read_mask(path).astype(np.float32) / np.float32(STEPS)

"""Images at the edge: finding them, decoding them, and preparing them for the model."""

import logging
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from tagclip.errors import ImageError
from tagclip.image_formats import FORMATS, HEIF_EXTRA, HEIF_FORMAT, is_heif, register_heif
from tagclip.image_lists import ImageFile, find_images
from tagclip.stored_files import FilePlace, StoredFile, image_stream

if TYPE_CHECKING:
    import torch

__all__ = [
    "ImageFile", "Size", "decode_image", "find_images", "image_size", "prepare_image", "stored_orientation",
    "target_size",
]  # fmt: skip

logger = logging.getLogger(__name__)

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
WHITE = (255, 255, 255)
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what makes the picture upright
BACK = {6: 8, 8: 6}  # orientation -> the one that undoes it; the others undo themselves
SWAPS_SIDES = (5, 6, 7, 8)


@dataclass(frozen=True)
class Size:
    """Height and width in pixels."""

    height: int
    width: int


def decode_image(source: Any, *, apply_exif: bool = True, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode any image into RGB.

    Grayscale, palette, CMYK and 16-bit images become 8-bit RGB (16 bits by v / 257, floating point in [0, 1] by
    255 v); transparency is laid over white; of an animation the first frame counts. HEIC and HEIF need pillow-heif.

    Args:
        source: path, stored file, PIL image, or array: (H, W) or (H, W, 1 | 3 | 4), uint8, uint16, bool, or float in
            [0, 1].
        apply_exif: turn the image upright as its EXIF orientation says; False gives the pixels as they are stored.
            HEIC and HEIF pictures are upright in either case: what turns them is part of the format.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous and writable.

    Raises:
        ImageError: no such file, not an image, damaged, too large, or values that do not fit 16 bits or [0, 1].
    """
    if isinstance(source, np.ndarray):
        return _decode_array(source)
    if isinstance(source, Image.Image):
        return _decode_pil(source, "image", apply_exif, max_pixels)
    if not isinstance(source, str | PathLike | StoredFile):
        raise ImageError(f"image of type {type(source).__name__}: give a path, a PIL image or an array")
    path = source if isinstance(source, StoredFile) else Path(source)
    with _open(path, whole=True) as image:
        return _decode_pil(image, str(path), apply_exif, max_pixels)


def image_size(path: FilePlace | str, *, apply_exif: bool = True, max_pixels: int = MAX_PIXELS) -> Size:
    """Size that `decode_image` will give, from the header alone.

    Raises:
        ImageError: no such file, not an image, or too large.
    """
    path = Path(path) if isinstance(path, str) else path
    with _open(path) as image:
        _check_pixels(image, str(path), max_pixels)
        width, height = _stored_size(image)
        if apply_exif and _orientation(image) in SWAPS_SIDES:
            width, height = height, width
        return Size(height, width)


def stored_orientation(path: FilePlace | str) -> tuple[str, int]:
    """Format of an image's file, as Pillow names it, and its EXIF orientation (1: as stored), from the header alone.

    Raises:
        ImageError: no such file, or not an image.
    """
    with _open(Path(path) if isinstance(path, str) else path) as image:
        return str(image.format), _orientation(image)


def target_size(height: int, width: int, patch_size: int, max_long_side: int | None = None) -> Size:
    """Model input of an image: sides rounded up to multiples of the patch size, after the cap on the long side.

    Args:
        max_long_side: the image is first shrunk to it, keeping its aspect; None for no cap.
    """
    if max_long_side is not None and max(height, width) > max_long_side:
        scale = max_long_side / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    return Size(-(-height // patch_size) * patch_size, -(-width // patch_size) * patch_size)


def prepare_image(
    rgb: np.ndarray,
    patch_size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    max_long_side: int | None = 1024,
) -> "torch.Tensor":
    """Resize (bicubic, antialiased) to whole patches and normalise.

    Args:
        rgb: (H, W, 3) uint8.
        patch_size: of the model.
        mean, std: of the model's preprocessing, for values in [0, 1].
        max_long_side: see `target_size`.

    Returns:
        (3, H', W') float32, both sides multiples of `patch_size`.
    """
    # Imported when needed: processes that only decode and write masks can do without torch.
    import torch

    size = target_size(rgb.shape[0], rgb.shape[1], patch_size, max_long_side)
    resized = Image.fromarray(rgb).resize((size.width, size.height), Image.Resampling.BICUBIC)
    values = torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous().float().div_(255)
    return values.sub_(torch.tensor(mean)[:, None, None]).div_(torch.tensor(std)[:, None, None])


def _open(path: FilePlace, *, whole: bool = False) -> Image.Image:
    """Args:
    whole: more than the header will be read: a stored file is fetched at once.
    """
    try:
        if path.is_dir():
            raise ImageError(f"{path}: is a folder, not an image")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: empty file")
        return _identify(path, whole)
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: too many pixels; shrink it first") from error
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    except (ValueError, SyntaxError, TypeError, OverflowError) as error:
        raise ImageError(f"{path}: damaged ({error})") from error


def _identify(path: FilePlace, whole: bool) -> Image.Image:
    source = image_stream(path, whole=whole)
    try:
        return Image.open(source, formats=FORMATS)
    except Image.UnidentifiedImageError:
        with path.open("rb") as stream:
            head = stream.read(12)
        if not is_heif(head):
            raise
    if not register_heif():
        raise ImageError(f"{path}: a HEIC or HEIF picture, which needs pillow-heif: {HEIF_EXTRA}")
    return Image.open(source, formats=[HEIF_FORMAT])


def _check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{name}: {width} x {height} pixels, more than {max_pixels}; shrink it first")
    if width * height == 0:
        raise ImageError(f"{name}: no pixels")


def _orientation(image: Image.Image) -> int:
    # Read before the pixels are, so that the size known from the header is the size of the decoded image.
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # Pillow raises all sorts on damaged EXIF, which is no reason to lose the image
        logger.debug("unreadable EXIF orientation (%s)", error)
        return 1


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of the pixels in the file; Pillow may announce the size that a TIFF has once it is turned."""
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2[IMAGEWIDTH]), int(image.tag_v2[IMAGELENGTH])
    return image.size


def _decode_pil(image: Image.Image, name: str, apply_exif: bool, max_pixels: int) -> np.ndarray:
    _check_pixels(image, name, max_pixels)
    stored = _orientation(image)
    try:
        image.load()
        method = _missing_turn(stored, _orientation(image), apply_exif)
        rgb = _to_rgb(image)
        if method is not None:
            rgb = rgb.transpose(method)
        return np.array(rgb)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError as error:
        width, height = image.size
        raise ImageError(f"{name}: not enough memory for {width} x {height} pixels; shrink it first") from error
    except Exception as error:  # Pillow's decoders raise all sorts on damaged files
        raise ImageError(f"{name}: damaged image ({' '.join(str(error).split()) or type(error).__name__})") from error


def _missing_turn(stored: int, loaded: int, apply_exif: bool) -> Image.Transpose | None:
    """What still has to be done to a loaded picture: Pillow turns TIFFs by itself, and then takes the tag away."""
    if apply_exif:
        return TRANSPOSED.get(loaded)
    return TRANSPOSED.get(BACK.get(stored, stored)) if loaded != stored else None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_from_uint16(np.array(image).astype(np.uint16))).convert("RGB")
    if image.mode == "I":
        values = np.array(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"values from {values.min()} to {values.max()}, which do not fit 16 bits; scale them")
        return Image.fromarray(_from_uint16(values.astype(np.uint16))).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_from_float(np.array(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (*WHITE, 255)), layer).convert("RGB")
    return image.convert("RGB")


def _decode_array(array: np.ndarray) -> np.ndarray:
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise ImageError(f"array of shape {shape}: an image is (H, W) or (H, W, 1 | 3 | 4), not empty")
    if array.dtype == np.uint16:
        array = _from_uint16(array)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        array = _from_float(array)
    elif array.dtype != np.uint8:
        raise ImageError(f"array of {array.dtype}: give uint8, uint16, bool, or float in [0, 1]")
    if array.shape[2] == 4:
        return np.array(_to_rgb(Image.fromarray(np.ascontiguousarray(array))))
    # Arrays made of PIL images are read-only, which the CRF's and torch's buffers do not take.
    return np.require(np.broadcast_to(array, (*array.shape[:2], 3)), requirements=("C", "W"))


def _from_uint16(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_float(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ImageError("floating-point values that are not numbers; an image has values in [0, 1]")
    if values.min() < 0 or values.max() > 1:
        span = f"{values.min():g} to {values.max():g}"
        raise ImageError(f"floating-point values from {span}; an image has values in [0, 1]: scale them")
    return np.rint(values * 255).astype(np.uint8)

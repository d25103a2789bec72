"""Masks on disk: palette PNGs whose values are the labels; 16-bit grey ones where there are too many for 8 bits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from tagclip.errors import ImageError, UsageError
from tagclip.images import Size
from tagclip.stored_files import FilePlace, image_stream

GREY_BITS = {"1": 1, "L": 8, "I;16": 16, "I;16B": 16, "I": 16}  # of Pillow's modes
LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")  # a JPEG's values are no ids, whatever its file is called
IGNORE_8_BIT, IGNORE_16_BIT = 255, 65535
MAX_LABELS = IGNORE_16_BIT  # of a 16-bit mask, the background included, the ignore label not
IGNORE_COLOUR = (224, 224, 192)  # how PASCAL VOC paints pixels that do not count: its colour map at 255
IGNORE_COLOUR_16_BIT = (252, 248, 248)  # the same colour map at 65535; at 255 it has a class there


def ignore_label(labels: int) -> int:
    """The value of pixels without an answer in masks of so many labels: 255, or 65535 where 255 is a class.

    Args:
        labels: number of labels, the background included (`Vocabulary.label_count`).

    Raises:
        UsageError: more labels than a 16-bit mask can hold.
    """
    if labels > MAX_LABELS:
        raise UsageError(f"{labels} labels, background included, do not fit into masks: use at most {MAX_LABELS}")
    return IGNORE_8_BIT if labels <= IGNORE_8_BIT else IGNORE_16_BIT


def label_dtype(labels: int) -> np.dtype:
    """What a mask of so many labels is made of: uint8 up to 255 labels, else uint16; see `ignore_label`."""
    return np.dtype(np.uint8 if ignore_label(labels) == IGNORE_8_BIT else np.uint16)


def chosen_ignore_label(configured: int, labels: int) -> int:
    """The ignore label that is used: the configured one, or 65535 in the place of a 255 that is a class.

    Raises:
        UsageError: too many labels, or a configured value that is a class or does not fit into 16 bits.
    """
    if configured == IGNORE_8_BIT:
        return ignore_label(labels)
    if not labels <= configured <= IGNORE_16_BIT:
        raise UsageError(
            f"masks.ignore_label {configured}: labels 0 to {labels - 1} are classes and masks hold up to "
            f"{IGNORE_16_BIT}; use {ignore_label(labels)}"
        )
    return configured


def colour_table(dtype: np.dtype, palette: np.ndarray, ignored: int | None = None) -> np.ndarray:
    """A colour for every value that a mask can hold, (256 or 65536, 3) uint8 RGB; values without a label are black.

    Args:
        dtype: of the mask, uint8 or uint16.
        palette: colours by label, (labels, 3).
        ignored: the ignore label; None: the highest value.
    """
    highest = np.iinfo(dtype).max
    colours = np.zeros((highest + 1, 3), np.uint8)
    colours[: len(palette)] = palette
    colours[highest if ignored is None else ignored] = IGNORE_COLOUR if dtype == np.uint8 else IGNORE_COLOUR_16_BIT
    return colours


def encode_mask(mask: np.ndarray, palette: np.ndarray, ignored: int | None = None) -> bytes:
    """A label map as PNG whose values are the labels.

    uint8 becomes a palette PNG, in which a person sees colours; PNG has no palettes of 16 bits, so uint16 becomes a
    grey one, in which most viewers show black (`tools/visualize.py` paints it).

    Args:
        mask: (H, W) uint8 or uint16, see `label_dtype`.
        palette: colours by label, (labels, 3) uint8 RGB (`Vocabulary.label_palette`); others are black.
        ignored: painted as PASCAL VOC paints ignored pixels; None: the highest value.

    Returns:
        The bytes of the file; the same mask always gives the same bytes.

    Raises:
        UsageError: a mask of another dtype.
    """
    if mask.dtype not in (np.uint8, np.uint16):
        raise UsageError(f"a mask of {mask.dtype}: masks are uint8, or uint16 for more than {IGNORE_8_BIT} labels")
    image = Image.fromarray(np.ascontiguousarray(mask))
    if mask.dtype == np.uint8:
        image.putpalette(colour_table(mask.dtype, palette, ignored).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def count_labels(mask: np.ndarray) -> dict[int, int]:
    """Pixels by label of a (H, W) mask; labels that do not occur are left out."""
    counts = np.bincount(mask.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


@dataclass(frozen=True)
class MaskHeader:
    """What a mask's file says before its pixels are read.

    Attributes:
        size: of the mask.
        bits: per pixel, 1 to 16.
        is_palette: values are places in a table of colours; grey otherwise.
    """

    size: Size
    bits: int
    is_palette: bool


def mask_header(path: FilePlace) -> MaskHeader:
    """Size and depth of a mask.

    Raises:
        ImageError: unreadable file, or a colour image.
    """
    with _opened(path) as image:
        if image.mode not in ("P", *GREY_BITS):
            raise ImageError(f"{path}: {_holds_colours(image.mode)}")
        bits = grey_bits(image, path) if image.mode == "L" else GREY_BITS.get(image.mode, 8)
        return MaskHeader(Size(image.size[1], image.size[0]), bits, image.mode == "P")


def read_mask(path: FilePlace) -> np.ndarray:
    """Label map of a palette or grey PNG of 1, 2, 4, 8 or 16 bits.

    Returns:
        (H, W) class ids, uint8, or uint16 of a file of more than 8 bits; the palette's colours are not looked at.

    Raises:
        ImageError: unreadable file, a colour image, or ids beyond 65535.
    """
    with _opened(path) as image:
        mode, values = image.mode, _stored_ids(image, path)
    if values.ndim != 2:
        grey = " (its channels are equal: save one of them)" if _is_grey(values) else ""
        raise ImageError(f"{path}: {_holds_colours(mode)}{grey}")
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype != np.uint8:
        if values.size and (values.min() < 0 or values.max() > IGNORE_16_BIT):
            raise ImageError(f"{path}: ids from {values.min()} to {values.max()}; a mask holds 0 to {IGNORE_16_BIT}")
        values = values.astype(np.uint16)
    return values


def with_ignored_value(mask: np.ndarray, ignored: int) -> np.ndarray:
    """A mask whose ignored pixels have this value: in one of 16 bits where 8 are enough, 65535 means what 255 does."""
    if mask.dtype == np.uint16 and ignored == IGNORE_8_BIT:
        return np.where(mask == IGNORE_16_BIT, IGNORE_8_BIT, mask).astype(np.uint16)
    return mask


@contextmanager
def _opened(path: FilePlace) -> Iterator[Image.Image]:
    """The image of a mask; what goes wrong while it is read becomes one line."""
    try:
        with Image.open(image_stream(path, whole=True), formats=LOSSLESS) as image:
            yield image
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such mask") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image that can hold class ids; a mask is a palette or grey PNG") from None
    except Exception as error:  # Pillow's decoders raise all sorts on damaged files
        raise ImageError(f"{path}: cannot be read as a mask ({error}); make it again") from None


def _holds_colours(mode: str) -> str:
    return f"a {mode} image holds colours, not class ids; save ids in a palette or grey PNG"


def grey_bits(image: Image.Image, path: FilePlace) -> int:
    """Bits per pixel that a grey PNG stores; 8 of any other image."""
    if image.format != "PNG" or image.mode != "L":
        return 8
    with path.open("rb") as file:
        return file.read(25)[24]  # the header chunk comes first: signature 8, length 4, type 4, width 4, height 4


def _stored_ids(image: Image.Image, path: FilePlace) -> np.ndarray:
    """Values as the file stores them. Pillow spreads grey of 2 and 4 bits over 0 to 255."""
    values = np.asarray(image)
    bits = grey_bits(image, path)
    return values // (255 // (2**bits - 1)) if bits < 8 else values


def _is_grey(values: np.ndarray) -> bool:
    return values.ndim == 3 and values.shape[2] >= 3 and bool((values[..., :3] == values[..., :1]).all())

"""Masks of any depth are read as they are meant, and files that are no masks are refused in one line."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import ImageError
from wsss.files.mask_files import read_mask


def png(bits, palette, rows):
    """A PNG of a few bits per pixel, which Pillow cannot write in all kinds."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = rows.shape
    digits = ["".join(f"{value:0{bits}b}" for value in row) for row in rows]
    lines = b"".join(
        b"\0" + int(f"{line:0<{-(-len(line) // 8) * 8}}", 2).to_bytes(-(-len(line) // 8), "big") for line in digits
    )
    header = struct.pack(">IIBBBBB", width, height, bits, 3 if palette else 0, 0, 0, 0)
    colours = chunk(b"PLTE", bytes(3 * 2**bits)) if palette else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colours + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize(("bits", "palette"), [(1, False), (1, True), (2, False), (2, True), (4, False), (4, True),
                                               (8, False), (8, True), (16, False)])  # fmt: skip
def test_masks_of_any_depth(tmp_path, bits, palette):
    ids = np.random.default_rng(bits).integers(0, min(2**bits, 200), (5, 7))
    ids[0, 0], ids[0, 1] = 0, min(2**bits - 1, 200)
    (tmp_path / "a.png").write_bytes(png(bits, palette, ids))
    found = read_mask(tmp_path / "a.png")
    np.testing.assert_array_equal(found, ids)
    assert found.dtype == (np.uint16 if bits == 16 else np.uint8)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGB", "a RGB image holds colours, not class ids; save ids in a palette or grey PNG$"),
        ("RGBA", "a RGBA image holds colours"),
        ("grey", r"a RGB image holds colours, .*\(its channels are equal: save one of them\)"),
    ],
)
def test_colours_are_no_ids(tmp_path, mode, message):
    image = Image.new("RGB" if mode == "grey" else mode, (4, 4), (3, 3, 3) if mode == "grey" else "red")
    image.save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=message):
        read_mask(tmp_path / "a.png")


def test_a_jpeg_holds_no_ids_whatever_it_is_called(tmp_path):
    Image.new("L", (4, 4), 3).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(ImageError, match=r"a.png: not an image that can hold class ids"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"mask"])
def test_damaged_masks(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a.png: "):
        read_mask(tmp_path / "a.png")


def test_a_mask_cut_short(tmp_path):
    content = png(8, False, np.random.default_rng(0).integers(0, 200, (64, 64)))
    for end in range(30, len(content) - 12, 97):
        (tmp_path / "a.png").write_bytes(content[:end])
        with pytest.raises(ImageError, match=r"a.png: "):
            read_mask(tmp_path / "a.png")

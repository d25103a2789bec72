"""Image files of every kind that a folder of photos may hold, good and bad, drawn by ourselves."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def scene(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """A smooth (H, W, 3) uint8 picture whose corners differ, so that turning it shows."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).copy()


def write_good(folder: Path) -> dict[str, Path]:
    """One file of each kind that must be read, by name of the kind."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = scene()
    image = Image.fromarray(rgb)
    grey = image.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))))
    files = {
        "rgb": (image, "rgb.jpg", {"quality": 95}),
        "grayscale": (grey, "grayscale.png", {}),
        "one_bit": (grey.convert("1"), "one_bit.png", {}),
        "sixteen_bit": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "sixteen_bit.png", {}),
        "sixteen_bit_tiff": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "sixteen_bit_tiff.tif", {}),
        "rgba": (alpha, "rgba.png", {}),
        "grey_alpha": (alpha.convert("LA"), "grey_alpha.png", {}),
        "palette": (image.quantize(64), "palette.png", {}),
        "palette_transparent": (image.quantize(64), "palette_transparent.png", {"transparency": 0}),
        "cmyk": (image.convert("CMYK"), "cmyk.jpg", {"quality": 95}),
        "exif": (image, "exif.jpg", {"quality": 95, "exif": exif}),
        "webp": (image, "webp.webp", {"lossless": True}),
        "bmp": (image, "bmp.BMP", {}),
        "one_pixel": (image.crop((0, 0, 1, 1)), "one_pixel.png", {}),
        "panorama": (image.resize((20000, 30)), "panorama.jpg", {"quality": 60}),
    }
    paths = {}
    for kind, (picture, name, options) in files.items():
        paths[kind] = folder / name
        picture.save(paths[kind], **options)
    paths["animated"] = folder / "animated.gif"
    frames = [image.quantize(64), Image.fromarray(255 - rgb).quantize(64)]
    frames[0].save(paths["animated"], save_all=True, append_images=frames[1:], duration=100, loop=0)
    return paths


def write_bad(folder: Path) -> dict[str, Path]:
    """One file of each kind that cannot be read, by name of the kind."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "whole.tmp"
    Image.fromarray(scene(480, 640)).save(whole, format="JPEG", quality=95)
    data = whole.read_bytes()
    whole.unlink()
    contents = {
        "truncated.jpg": data[: len(data) // 2],
        "header_only.jpg": data[:10],
        "empty.jpg": b"",
        "text.jpg": b"This is not a picture, whatever its name says.\n",
        "noise.png": b"\x89PNG\r\n\x1a\n" + bytes(range(200)),
        "bomb.png": _bomb(),
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {Path(name).stem: folder / name for name in contents}


def _bomb() -> bytes:
    """A few bytes that claim 60000 x 60000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

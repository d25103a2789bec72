"""Which image files can be read here: by Pillow, by parts of Pillow that not every build has, and by pillow-heif."""

from __future__ import annotations

from importlib.util import find_spec

# What a folder of photos may hold; formats that run programs or code (EPS, WMF, ...) are not opened.
FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000",
    *(["AVIF"] if find_spec("PIL._avif") else []),  # Pillow 11.3 and later
)  # fmt: skip
HEIF_FORMAT = "HEIF"
HEIF_EXTRA = "pip install 'tagclip-wsss[heif]'"

# In the order in which a list's id without a suffix is looked up.
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2",
    ".jpe", ".mpo", ".apng", ".dib", ".pbm", ".pnm", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c",
)  # fmt: skip
AVIF_SUFFIXES = (".avif",)
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
IMAGE_SUFFIXES = (*SUFFIXES, *AVIF_SUFFIXES, *HEIF_SUFFIXES)
# Pictures that nothing here reads: formats of cameras and of drawing programs.
FOREIGN_SUFFIXES = (
    ".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw", ".x3f",
    ".avifs", ".heics", ".heifs", ".jxl", ".jxr", ".exr", ".hdr", ".pfm", ".psd", ".psb", ".xcf", ".tga", ".ico",
    ".icns", ".dcm", ".eps", ".ps", ".ai", ".svg", ".pcx", ".sgi", ".ras", ".qoi",
)  # fmt: skip

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def readable_suffixes() -> tuple[str, ...]:
    """Lower-case suffixes of the files that can be read on this machine, in the order of `IMAGE_SUFFIXES`."""
    avif = AVIF_SUFFIXES if "AVIF" in FORMATS else ()
    heif = HEIF_SUFFIXES if find_spec("pillow_heif") else ()
    return (*SUFFIXES, *avif, *heif)


def is_heif(head: bytes) -> bool:
    """Whether a file's first 12 bytes are those of a HEIC or HEIF picture (an AVIF picture may begin like one)."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def register_heif() -> bool:
    """Makes Pillow open HEIC and HEIF; False without pillow-heif. The package is imported now, not before."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True

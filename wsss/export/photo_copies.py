"""Photos on their way into an export: as they are, or made anew where other tools would see something else."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, JpegImagePlugin

from tagclip.errors import ImageError, RunError, UsageError
from tagclip.images import TRANSPOSED, decode_image, image_size, stored_orientation
from tagclip.stored_files import FilePlace, image_stream
from wsss.files.atomic import disk_errors

# Formats that every tool reads, by the suffixes that they may keep. Photos in others become PNG, without loss.
PLAIN = {
    "JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",), "BMP": (".bmp",), "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}  # fmt: skip
JPEG_QUALITY = 95  # of photos that have to become JPEG
LOSSLESS_SETTINGS: dict[str, dict[str, Any]] = {
    "PNG": {}, "BMP": {}, "TIFF": {"compression": "tiff_lzw"}, "WEBP": {"lossless": True},
}  # fmt: skip


@dataclass(frozen=True)
class PhotoPlan:
    """How a photo goes into an export.

    Attributes:
        suffix: of its file there.
        change: "" for the same bytes; "upright": the pixels are turned as EXIF says and the tag goes, or, for masks
            made of pixels as they are stored, only the tag goes; "png" or "jpeg": saved anew in this format.
    """

    suffix: str
    change: str = ""


class PhotoCopier:
    """Copies or links photos, and counts what it had to change.

    Args:
        mode: "copy", "symlink", "hardlink" or "none".
        apply_exif: whether the run's masks are upright.
        suffix: that all photos of the export must have (mmseg), ".jpg"; None: each keeps its own.

    Attributes:
        counts: photos by what was done: "copied", "linked", "upright", "png", "jpeg", "named" (with "none").
    """

    def __init__(self, mode: str, *, apply_exif: bool = True, suffix: str | None = None):
        self.mode, self.apply_exif, self.suffix = mode, apply_exif, suffix
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def plan(self, photo: FilePlace) -> PhotoPlan:
        """What has to be done to a photo, by its header.

        Raises:
            ImageError: no photo.
        """
        kind, orientation = stored_orientation(photo)
        own = photo.suffix
        if kind not in PLAIN:
            change, suffix = "png", ".png"
        else:
            known = own.lower() in {suffix for suffixes in PLAIN.values() for suffix in suffixes}
            change, suffix = "upright" if orientation in TRANSPOSED else "", own if known else PLAIN[kind][0]
        if self.suffix is not None and suffix.lower() != self.suffix:
            is_jpeg = kind in ("JPEG", "MPO")
            change, suffix = (change if is_jpeg else "jpeg"), self.suffix
        elif self.suffix is not None:
            suffix = self.suffix
        return PhotoPlan(suffix, change)

    def place(self, photo: FilePlace, target: Path, plan: PhotoPlan) -> None:
        """Puts a photo where the export has it.

        Raises:
            ImageError: a photo that has to be made anew and cannot be read.
            RunError: a full disk, or a link that the file system does not make.
        """
        if self.mode == "none":
            self.count("named")
            return
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        if plan.change:
            content = self.encoded(photo, plan)
            with disk_errors(target):
                target.write_bytes(content)
            self.count(plan.change)
            return
        if self.mode == "copy":
            if isinstance(photo, Path):
                with disk_errors(target):
                    shutil.copyfile(photo, target)
            else:
                content = photo.read_bytes()
                with disk_errors(target):
                    target.write_bytes(content)
            self.count("copied")
            return
        if not isinstance(photo, Path):
            raise UsageError(f"--photos {self.mode}: {photo} is no file that a link can lead to; use --photos copy")
        try:
            if self.mode == "symlink":
                target.symlink_to(photo.resolve())
            else:
                os.link(photo.resolve(), target)
        except OSError as error:
            raise RunError(
                f"photos {self.mode}: {target} cannot be a link to {photo} ({error.strerror or error}); use copy"
            ) from None
        self.count("linked")

    def count(self, what: str) -> None:
        """Counts a photo; several threads do."""
        with self._lock:
            self.counts[what] += 1

    def content(self, photo: FilePlace, plan: PhotoPlan) -> bytes:
        """The bytes of a photo's file in the export, for formats that hold photos inside.

        Raises:
            ImageError: it cannot be read.
        """
        self.count(plan.change or "copied")
        if plan.change:
            return self.encoded(photo, plan)
        try:
            return photo.read_bytes()
        except OSError as error:
            raise ImageError(f"{photo}: {error.strerror or error}") from None

    def encoded(self, photo: FilePlace, plan: PhotoPlan) -> bytes:
        """A photo made anew: its raw pixels are those that the mask was made of."""
        buffer = io.BytesIO()
        if plan.change == "upright":
            with contextlib.suppress(_NotPlain), Image.open(image_stream(photo, whole=True)) as image:
                _save_like(image, buffer, self.apply_exif)
                return buffer.getvalue()
        rgb = Image.fromarray(decode_image(photo, apply_exif=self.apply_exif))
        kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}.get(
            plan.suffix.lower(), "TIFF"
        )
        settings = LOSSLESS_SETTINGS.get(kind, {"quality": JPEG_QUALITY, "subsampling": 0})
        rgb.save(buffer, format=kind, **settings)
        return buffer.getvalue()


class _NotPlain(Exception):
    """Not a JPEG whose own tables can be used again."""


def _save_like(image: Image.Image, buffer: io.BytesIO, apply_exif: bool) -> None:
    """A JPEG with the quantisation tables and the sampling of the one it was, turned, without its orientation."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode not in ("L", "RGB"):
        raise _NotPlain
    try:
        exif = image.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
        sampling, tables, profile = (
            JpegImagePlugin.get_sampling(image),
            image.quantization,
            image.info.get("icc_profile"),
        )
        image.load()
        method = TRANSPOSED.get(orientation) if apply_exif else None
        turned = image if method is None else image.transpose(method)
        exif.pop(ExifTags.Base.Orientation, None)
        settings: dict[str, Any] = {"qtables": tables, "exif": exif.tobytes()}
        if sampling in (0, 1, 2):
            settings["subsampling"] = sampling
        if profile:
            settings["icc_profile"] = profile
        turned.save(buffer, format="JPEG", **settings)
    except Exception as error:  # damaged photos and tables: the general way tells what is wrong
        buffer.seek(0)
        buffer.truncate()
        raise _NotPlain from error


def check_size(photo: FilePlace, height: int, width: int, apply_exif: bool) -> None:
    """Raises:
    ImageError: the photo has not the size of its mask: it was changed after the run.
    """
    size = image_size(photo, apply_exif=apply_exif)
    if (size.height, size.width) != (height, width):
        raise ImageError(
            f"{photo}: {size.width} x {size.height} pixels, its mask {width} x {height}; was the photo changed?"
        )

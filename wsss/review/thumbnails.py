"""Thumbnails of photos, and small label maps and class maps to lay over them; each is made once and kept."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from tagclip.errors import ImageError, TagclipError
from tagclip.images import SWAPS_SIDES, decode_image
from wsss.files.atomic import atomic_file
from wsss.files.confidence_files import read_confidence
from wsss.files.map_files import StoredMaps, read_maps
from wsss.files.mask_files import IGNORE_COLOUR, read_mask
from wsss.review.doubt import PARTS

PER_FOLDER = 1_000
IGNORED = -1  # how the page calls ignored pixels; 0 is the background, c + 1 is class c
MOST_COLOURS = 256  # of a palette PNG


@dataclass(frozen=True)
class ThumbnailConfig:
    """How thumbnails are made.

    Attributes:
        side: longer side of a thumbnail, in pixels.
        quality: of WebP, 0 to 100.
        full_side: longer side of the label map that is shown over the photo itself, at most.
        map_side: longer side of a class map, at most.
        most_maps: class maps of one image, those of the best scores first.
        least_overlap: pairs of class maps that overlap less than this, in ten-thousandths, are no rivals.
        most_rivals: pairs of rivals that are kept.
    """

    side: int = 320
    quality: int = 75
    full_side: int = 2048
    map_side: int = 40
    most_maps: int = 12
    least_overlap: int = 500
    most_rivals: int = 6


@dataclass(frozen=True)
class ThumbnailStage:
    """What all thumbnails of a run are made with; small, it travels with each job.

    Attributes:
        folder: `review/thumbs`. scratch: folder for temporary files on the same file system.
        palette: colours by label, (labels, 3) uint8 RGB.
        has_background: whether label 0 is the background.
        ignored: the masks' ignore label.
        apply_exif: turn photos upright, as the run did.
    """

    folder: Path
    scratch: Path
    palette: np.ndarray
    has_background: bool
    ignored: int
    apply_exif: bool
    config: ThumbnailConfig


@dataclass(frozen=True)
class ThumbnailJob:
    """One image, and what of it has to be made.

    Attributes:
        number: of its files, which it keeps for as long as it is in the run.
        photo, mask, maps, confidence: its files, None where there is none.
        classes: tags, the best score first; their class maps are shown.
        with_photo, with_overlay: what is to be made.
    """

    id: str
    number: int
    photo: Path | None
    mask: Path | None
    maps: Path | None
    classes: tuple[int, ...] = ()
    with_photo: bool = True
    with_overlay: bool = True
    confidence: Path | None = None


@dataclass(frozen=True)
class OverlayFigures:
    """What the mask and the class maps of an image say.

    Attributes:
        shares: (label as the page calls it, ten-thousandths of the pixels), the largest first.
        rivals: (class, class, overlap in ten-thousandths), the strongest first.
        has_mask, has_maps: whether there was one that could be read.
        has_full: whether the mask is stored at the photo's size, too.
        confidence: mean probability of the mask's labels, in ten-thousandths; None: the run did not save any.
    """

    shares: tuple[tuple[int, int], ...] = ()
    rivals: tuple[tuple[int, int, int], ...] = ()
    has_mask: bool = False
    has_maps: bool = False
    has_full: bool = False
    confidence: int | None = None


@dataclass(frozen=True)
class ThumbnailReport:
    """What became of a job; `figures` is None where the overlay was not made, `problem` says why there is no photo."""

    number: int
    with_photo: bool = False
    figures: OverlayFigures | None = None
    problem: str | None = None
    turned: bool = False


def thumbnail_path(folder: Path, number: int, suffix: str) -> Path:
    """Where the files of an image are: `0012/345.webp` for number 12345."""
    return folder / f"{number // PER_FOLDER:04d}" / f"{number % PER_FOLDER:03d}{suffix}"


def make_thumbnail(stage: ThumbnailStage, job: ThumbnailJob) -> ThumbnailReport:
    """Makes what the job asks for; what cannot be read is left out and said.

    Raises:
        RunError: full disk.
    """
    report = ThumbnailReport(job.number)
    if job.with_photo and job.photo is not None:
        try:
            content, turned = _photo(stage, job.photo)
            with atomic_file(thumbnail_path(stage.folder, job.number, ".webp"), stage.scratch) as file:
                file.write(content)
            report = replace(report, with_photo=True, turned=turned)
        except (ImageError, MemoryError) as error:
            report = replace(report, problem=" ".join(str(error).split()) or "no memory for this photo")
    if job.with_overlay:
        report = replace(report, figures=_write_overlay(stage, job))
    return report


def _photo(stage: ThumbnailStage, path: Path) -> tuple[bytes, bool]:
    """A thumbnail as WebP, and whether the file's pixels are turned by its EXIF orientation."""
    side = stage.config.side
    image = _decoded(path, side, stage.apply_exif)
    small = ImageOps.contain(image, (side, side), Image.Resampling.LANCZOS) if max(image.size) > side else image
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=stage.config.quality, method=4)
    return buffer.getvalue(), _is_turned(path)


def _decoded(path: Path, side: int, apply_exif: bool) -> Image.Image:
    """The photo, a large JPEG at a size near the one needed: its decoder shrinks it on the way, many times faster."""
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            image.draft(image.mode, (2 * side, 2 * side))
            return Image.fromarray(decode_image(image, apply_exif=apply_exif))
    except (OSError, ValueError, SyntaxError, TagclipError, Image.DecompressionBombError):
        return Image.fromarray(decode_image(path, apply_exif=apply_exif))


def _is_turned(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(0x0112, 1)) in (2, 3, 4, *SWAPS_SIDES)
    except Exception:  # Pillow raises all sorts on damaged EXIF
        return False


def _write_overlay(stage: ThumbnailStage, job: ThumbnailJob) -> OverlayFigures:
    mask = None if job.mask is None else _or_none(read_mask, job.mask)
    maps = None if job.maps is None else _or_none(read_maps, job.maps)
    content: dict[str, Any] = {}
    figures = OverlayFigures()
    full = thumbnail_path(stage.folder, job.number, ".full.js")
    if mask is not None and mask.size:
        config, codes = stage.config, _codes(mask, stage)
        content["mask"] = label_picture(_shrunk(codes, config.side), stage)
        figures = replace(figures, shares=_shares(codes), has_mask=True, has_full=max(mask.shape) > config.side)
        if figures.has_full:
            picture = label_picture(_shrunk(codes, config.full_side), stage)
            _write_script(full, stage.scratch, f"REVIEW.masks[{job.number}]", picture)
    if maps is not None and len(maps.classes):
        content["maps"] = _map_picture(maps, job.classes, stage.config)
        figures = replace(figures, has_maps=True, rivals=rival_classes(maps, stage.config))
    confidence = None if job.confidence is None else _or_none(read_confidence, job.confidence)
    if confidence is not None and confidence.size:
        figures = replace(figures, confidence=round(PARTS * float(confidence.mean(dtype=np.float64))))
    if not figures.has_full:
        full.unlink(missing_ok=True)
    script = thumbnail_path(stage.folder, job.number, ".js")
    if content:
        _write_script(script, stage.scratch, f"REVIEW.overlays[{job.number}]", content)
    else:
        script.unlink(missing_ok=True)
    return figures


def _or_none(read: Any, path: Path) -> Any:
    try:
        return read(path)
    except ImageError:
        return None


def _write_script(path: Path, scratch: Path, target: str, content: Any) -> None:
    with atomic_file(path, scratch) as file:
        file.write(f"{target} = {json.dumps(content, separators=(',', ':'))};\n".encode())


def _codes(mask: np.ndarray, stage: ThumbnailStage) -> np.ndarray:
    """A label map as the page calls labels, (H, W) int32."""
    codes = mask.astype(np.int32) + (0 if stage.has_background else 1)
    codes[mask == stage.ignored] = IGNORED
    labels = len(stage.palette) + (0 if stage.has_background else 1)
    codes[codes >= labels] = IGNORED  # no class: of a mask that something else has written
    return codes


def _shrunk(codes: np.ndarray, side: int) -> np.ndarray:
    height, width = codes.shape
    factor = side / max(height, width)
    if factor >= 1:
        return codes
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(codes, size, interpolation=cv2.INTER_NEAREST_EXACT)


def _shares(codes: np.ndarray) -> tuple[tuple[int, int], ...]:
    labels, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple((int(labels[place]), round(PARTS * int(counts[place]) / codes.size)) for place in order)


def label_picture(codes: np.ndarray, stage: ThumbnailStage) -> dict[str, Any]:
    """A label map as a palette PNG of the few labels that it has, and what they are.

    Args:
        codes: (H, W) int32: -1 ignored, 0 background, c + 1 class c.

    Returns:
        {"png": base64, "labels": [code of each palette entry]}. Of more than 256 labels, which no photo has, the
        rarest count as ignored.
    """
    labels, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if len(labels) > MOST_COLOURS:
        kept = np.sort(np.argsort(-counts, kind="stable")[: MOST_COLOURS - 1])
        codes = np.where(np.isin(codes, labels[kept]), codes, IGNORED)
        labels, inverse = np.unique(codes, return_inverse=True)
    offset = 0 if stage.has_background else 1
    colours = [
        IGNORE_COLOUR if code == IGNORED else (0, 0, 0) if code < offset else stage.palette[code - offset].tolist()
        for code in labels.tolist()
    ]
    image = Image.fromarray(inverse.reshape(codes.shape).astype(np.uint8))
    image.putpalette([value for colour in colours for value in colour])
    return {"png": _png(image), "labels": labels.tolist()}


def _map_picture(maps: StoredMaps, classes: tuple[int, ...], config: ThumbnailConfig) -> dict[str, Any]:
    """Class maps below each other as one grey PNG, 255 where a map is 1."""
    stored = maps.classes.tolist()
    chosen = [name for name in classes if name in stored]
    chosen = [*chosen, *(name for name in stored if name not in chosen)][: config.most_maps]
    pictures = []
    for name in chosen:
        values = maps.maps[stored.index(name)].astype(np.float32)
        factor = min(1.0, config.map_side / max(values.shape))
        size = (max(1, round(values.shape[1] * factor)), max(1, round(values.shape[0] * factor)))
        small = cv2.resize(values, size, interpolation=cv2.INTER_AREA) if factor < 1 else values
        pictures.append(np.rint(255 * np.nan_to_num(small).clip(0, 1)).astype(np.uint8))
    return {"png": _png(Image.fromarray(np.concatenate(pictures))), "classes": chosen}


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=9)
    return base64.b64encode(buffer.getvalue()).decode()


def rival_classes(maps: StoredMaps, config: ThumbnailConfig) -> tuple[tuple[int, int, int], ...]:
    """Pairs of classes whose maps lie over the same pixels, the strongest first.

    Returns:
        (class, class, sum of minima / sum of maxima of both maps, in ten-thousandths).
    """
    values = np.nan_to_num(maps.maps.astype(np.float64)).reshape(len(maps.classes), -1)
    found = []
    for first in range(len(values)):
        for second in range(first + 1, len(values)):
            union = np.maximum(values[first], values[second]).sum()
            overlap = np.minimum(values[first], values[second]).sum() / union if union > 0 else 0.0
            if (parts := round(PARTS * float(overlap))) >= config.least_overlap:
                found.append((int(maps.classes[first]), int(maps.classes[second]), parts))
    return tuple(sorted(found, key=lambda pair: -pair[2])[: config.most_rivals])

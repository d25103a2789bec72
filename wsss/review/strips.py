"""Pictures of images or of a run folder: where CAMs, masks and tags come from, and where the pictures go."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tagclip.arguments import as_names
from tagclip.errors import ImageError, RunError, UsageError
from tagclip.image_lists import ImageFile
from tagclip.images import decode_image
from tagclip.vocabulary import Vocabulary
from wsss.files.atomic import disk_errors
from wsss.files.map_files import read_maps
from wsss.files.mask_files import ignore_label, label_dtype, read_mask
from wsss.files.photos import PhotoLocator
from wsss.files.run_folder import read_manifest, run_vocabulary
from wsss.review.panels import PictureConfig, TagMaps, contact_sheet, mask_overlay, strip

if TYPE_CHECKING:
    from tagclip.tagger import TagCLIP
    from wsss.masks.generator import MaskGenerator


def strips_of_run(
    root: Path,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
    config: PictureConfig | None = None,
    image_root: Path | str | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """(id, strip) of images of a run folder, from its files alone.

    Args:
        ids: these images; without them, `limit` images spread evenly over the run.
        image_root: where the photos are now; None: where they were when the run was made.

    Raises:
        UsageError: no run folder, an id that it does not have, or a photo that is not there.
        ImageError: an image, CAM file or mask that cannot be read.
    """
    manifest = read_manifest(root)
    vocabulary = run_vocabulary(root)
    if manifest is None or vocabulary is None:
        raise UsageError(f"--run {root}: no manifest.json there; give a run folder")
    apply_exif = manifest.get("masks", {}).get("image", {}).get("apply_exif", True)
    photos = PhotoLocator.of_run(root, image_root)
    paths = _photo_paths(root)
    chosen = list(as_names(ids, "--ids")) if ids else _spread(list(paths), limit)
    for name in chosen:
        if name not in paths:
            raise UsageError(f"--ids: {name!r} is not in {root / 'tags.jsonl'}")
        photo = photos.find(name, paths[name])
        rgb = decode_image(photo, apply_exif=apply_exif)
        stored = read_maps(root / "cams" / f"{name}.npz")
        mask_path = root / "masks" / f"{name}.png"
        overlay = None
        if mask_path.is_file():
            mask = read_mask(mask_path)
            if mask.shape != rgb.shape[:2]:
                raise ImageError(f"{mask_path}: not the size of {photo}; was the image changed?")
            overlay = _overlay(rgb, mask, vocabulary, config)
        tags = [
            TagMaps(vocabulary.names[index], None if stored.raw is None else stored.raw[place], cam)
            for place, (index, cam) in enumerate(zip(stored.classes.tolist(), stored.maps, strict=True))
        ]
        yield name, strip(rgb, tags, overlay, name, config)


def strips_of_images(
    files: Sequence[ImageFile],
    generator: MaskGenerator,
    tagger: TagCLIP,
    tags: Sequence[str] | None = None,
    config: PictureConfig | None = None,
) -> Iterator[tuple[str, np.ndarray]]:
    """(id, strip) of images that are tagged and masked now.

    Args:
        tags: class names to use for every image instead of the tagger's.
    """
    for file in files:
        rgb = decode_image(file.path, apply_exif=generator.config.image.apply_exif)
        names = as_names(tags, "tags") if tags else tagger(file.path).tags
        found = generator(file.path, names)
        maps = [TagMaps(*entry) for entry in zip(found.tags, found.raw, found.maps, strict=True)]
        yield file.id, strip(rgb, maps, _overlay(rgb, found.mask, generator.vocabulary, config), file.id, config)


def save_strips(strips: Iterator[tuple[str, np.ndarray]], out: Path, config: PictureConfig | None = None) -> int:
    """One contact sheet if `out` ends in .png, else one PNG an image in the folder `out`.

    Returns:
        Number of images drawn.

    Raises:
        UsageError: nothing to draw.
        RunError: `out` cannot be written.
    """
    sheet, drawn = [], 0
    for name, picture in strips:
        drawn += 1
        if out.suffix.lower() == ".png":
            sheet.append(picture)
        else:
            _save(picture, out / f"{name}.png")
    if not drawn:
        raise UsageError("no image to draw")
    if sheet:
        _save(contact_sheet(sheet, config), out)
    return drawn


def _save(picture: np.ndarray, path: Path) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


def _overlay(rgb: np.ndarray, mask: np.ndarray, vocabulary: Vocabulary, config: PictureConfig | None) -> np.ndarray:
    weight = (config or PictureConfig()).fill
    ignored = ignore_label(vocabulary.label_count)
    return mask_overlay(
        rgb, mask.astype(label_dtype(vocabulary.label_count)), vocabulary.label_palette,
        background=vocabulary.has_background, ignored=ignored, weight=weight,
    )  # fmt: skip


def _photo_paths(root: Path) -> dict[str, str | None]:
    path = root / "tags.jsonl"
    if not path.is_file():
        raise RunError(f"{root}: the run is not complete yet (no tags.jsonl); run its command again")
    with path.open(encoding="utf-8") as lines:
        records = (json.loads(line) for line in lines)
        return {record["id"]: record.get("path") for record in records}


def _spread(names: list[str], limit: int | None) -> list[str]:
    if limit is None or limit >= len(names):
        return names
    return [names[int(place)] for place in np.linspace(0, len(names) - 1, limit)]

"""Pictures of images or of a run folder: where CAMs, masks and tags come from, and where the pictures go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tagclip.arguments import as_names
from tagclip.errors import ImageError, RunError, UsageError
from tagclip.image_lists import ImageFile
from tagclip.images import decode_image
from tagclip.tag_files import TagRecord, read_tags
from tagclip.vocabulary import Vocabulary
from wsss.files.atomic import disk_errors
from wsss.files.map_files import read_maps
from wsss.files.mask_files import ignore_label, label_dtype, read_mask
from wsss.files.photos import PhotoLocator
from wsss.files.run_files import read_manifest, run_vocabulary
from wsss.files.run_reader import RunReader
from wsss.review.panels import PictureConfig, TagMaps, contact_sheet, mask_panel, strip

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
    photos, reader = PhotoLocator.of_run(root, image_root), RunReader(root)
    records = _tag_records(root, vocabulary)
    chosen = list(as_names(ids, "--ids")) if ids else _spread(list(records), limit)
    for name in chosen:
        if name not in records:
            raise UsageError(f"--ids: {name!r} is not in {root / 'tags.jsonl'}")
        photo = photos.find(name, records[name].path)
        rgb = decode_image(photo, apply_exif=apply_exif)
        stored = read_maps(reader.place("cams", name))
        mask_path = reader.place("masks", name)
        overlay = None
        if mask_path.is_file():
            mask = read_mask(mask_path)
            if mask.shape != rgb.shape[:2]:
                raise ImageError(f"{mask_path}: not the size of {photo}; was the image changed?")
            overlay = _overlay(rgb, mask, vocabulary, config)
        raw, scores = stored.raw, records[name].scores
        tags = [
            _tag_maps(vocabulary, index, None if raw is None else raw[place], cam, scores)
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
        result = None if tags else tagger(file.path)
        names, scores = (as_names(tags or (), "tags"), None) if result is None else (result.tags, result.scores)
        found, vocabulary = generator(file.path, names), generator.vocabulary
        maps = [
            _tag_maps(vocabulary, vocabulary.index(name), raw, refined, scores)
            for name, raw, refined in zip(found.tags, found.raw, found.maps, strict=True)
        ]
        yield file.id, strip(rgb, maps, _overlay(rgb, found.mask, vocabulary, config), file.id, config)


def save_strips(strips: Iterator[tuple[str, np.ndarray]], out: Path, config: PictureConfig | None = None) -> int:
    """One contact sheet if `out` ends in .png, else one PNG per image in the folder `out`.

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


def _tag_maps(
    vocabulary: Vocabulary, index: int, raw: np.ndarray | None, refined: np.ndarray, scores: np.ndarray | None
) -> TagMaps:
    score = None if scores is None or np.isnan(scores[index]) else float(scores[index])
    red, green, blue = vocabulary.palette[index + 1].tolist()
    return TagMaps(vocabulary.names[index], raw, refined, score, (red, green, blue))


def _overlay(rgb: np.ndarray, mask: np.ndarray, vocabulary: Vocabulary, config: PictureConfig | None) -> np.ndarray:
    return mask_panel(
        rgb, mask.astype(label_dtype(vocabulary.label_count)), vocabulary.label_palette, config or PictureConfig(),
        background=vocabulary.has_background, ignored=ignore_label(vocabulary.label_count),
    )  # fmt: skip


def _tag_records(root: Path, vocabulary: Vocabulary) -> dict[str, TagRecord]:
    path = root / "tags.jsonl"
    if not path.is_file():
        raise RunError(f"{root}: the run is not complete yet (no tags.jsonl); run its command again")
    return {record.id: record for record in read_tags(path, vocabulary)}


def _spread(names: list[str], limit: int | None) -> list[str]:
    if limit is None or limit >= len(names):
        return names
    return [names[int(place)] for place in np.linspace(0, len(names) - 1, limit)]

"""A run folder made by hand, of photos and names that exports trip over; no model is needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from tagclip.tag_files import TagRecord, tag_line
from tagclip.vocabulary import Vocabulary
from wsss.files.mask_files import encode_mask, ignore_label, label_dtype

# id -> (suffix, EXIF orientation); widths and heights differ in every one.
PHOTOS = {
    "a": (".jpg", 1),
    "part one/a": (".jpg", 6),
    "part one/b#1 100%": (".JPG", 1),
    "été/日本 猫": (".png", 1),
    "été/turned": (".jpg", 3),
    "#first": (".jpeg", 8),
    "=sum(a,b)": (".jpg", 1),
    "empty": (".jpg", 1),
}
FAILED = "broken"
NO_TAGS = "empty"
NAMES = ("cat", "hot dog", "=cmd|x", 'été: <b>"A"&\'')


def vocabulary(classes: int = 4, *, has_background: bool = True) -> Vocabulary:
    """The four names, then made-up ones."""
    names = [*NAMES, *(f"thing {number}" for number in range(len(NAMES), classes))][:classes]
    return Vocabulary(names, name="small", has_background=has_background)


def draw_mask(number: int, height: int, width: int, tags: tuple[int, ...], words: Vocabulary) -> np.ndarray:
    """Blobs with holes and islands of each tag, and ignored pixels around the last one."""
    count, first = words.label_count, int(words.has_background)
    ignored = ignore_label(count)
    mask = np.full((height, width), 0 if first else ignored, label_dtype(count))
    rows, columns = np.mgrid[:height, :width]
    rng = np.random.default_rng(number)
    for index in tags:
        y, x = rng.integers(height // 4, 3 * height // 4), rng.integers(width // 4, 3 * width // 4)
        distance = np.hypot(rows - y, (columns - x) * rng.uniform(0.6, 1.4))
        radius = min(height, width) * rng.uniform(0.2, 0.35)
        blob = distance + 2 * np.sin(rows / 3) < radius
        blob &= ~(np.hypot(rows - y, columns - x) < radius / 3)  # a hole
        blob |= np.hypot(rows - y, columns - x) < radius / 9  # an island in it
        mask[blob] = index + first
        mask[(distance > radius) & (distance < radius + 2)] = ignored
    mask[0, : 3 * len(tags)] = [index + first for index in tags for _ in range(3)]  # smaller than a polygon
    return mask


def small_run(
    folder: Path,
    *,
    classes: int = 4,
    has_background: bool = True,
    photos: dict[str, tuple[str, int]] | None = None,
    apply_exif: bool = True,
    confidence: bool = False,
) -> Path:
    """Photos in `folder/photos`, a finished run in `folder/run`, which is returned."""
    words = vocabulary(classes, has_background=has_background)
    run, root = folder / "run", folder / "photos"
    lines = []
    for number, (name, (suffix, orientation)) in enumerate((photos or PHOTOS).items()):
        width, height = 60 + 4 * number, 90 - 3 * number
        path = root / f"{name}{suffix}"
        write_photo(path, width, height, orientation, number)
        if apply_exif and orientation >= 5:
            width, height = height, width
        tags = () if name == NO_TAGS else tuple(sorted({number % classes, classes - 1, (number * 7 + 1) % classes}))
        scores = np.linspace(0.05, 0.45, classes).astype(np.float32)
        scores[list(tags)] = [0.95 - 0.15 * place for place in range(len(tags))]
        record = TagRecord(name, tags, f"{name}{suffix}", (height, width), scores, path.stat().st_size)
        lines.append(json.dumps(tag_line(record, words)))
        mask = draw_mask(number, height, width, tags, words)
        target = run / "masks" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encode_mask(mask, words.label_palette))
        if confidence:
            values = np.full(mask.shape, 204, np.uint8)
            values[mask == tags[0] + int(has_background) if tags else mask < 0] = 102
            place = run / "confidence" / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(place)
    (run / "tags.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    failure = {"id": FAILED, "path": f"{FAILED}.jpg", "stage": "decode", "error": "ImageError", "message": "damaged"}
    (run / "failures.jsonl").write_text(json.dumps(failure) + "\n", encoding="utf-8")
    manifest = {
        "format": 1,
        "state": "complete",
        "id": "0" * 16,
        "vocabulary": words.to_dict(),
        "photos": {"root": str(root.absolute())},
        "masks": {"image": {"apply_exif": apply_exif}},
    }
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return run


def write_photo(path: Path, width: int, height: int, orientation: int, number: int = 0) -> None:
    """A smooth photo whose four corners differ, stored with an EXIF orientation."""
    rows, columns = np.mgrid[:height, :width]
    rgb = np.stack([255 * rows / height, 255 * columns / width, np.full((height, width), 40 * (number % 6))], axis=-1)
    image = Image.fromarray(rgb.astype(np.uint8))
    exif = image.getexif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "nobody"
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"quality": 93, "subsampling": 0, "exif": exif} if path.suffix.lower() != ".png" else {}
    image.save(path, **settings)

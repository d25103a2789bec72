"""`tools/segment.py`: a trained model over a folder of photos."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagclip.errors import ImageError
from tagclip.image_lists import ImageFile
from tagclip.images import decode_image
from wsss.files.atomic import atomic_file
from wsss.segmentation.overlays import save_label_map, save_overlay
from wsss.segmentation.predictor import Predictor


@dataclass(frozen=True)
class SegmentReport:
    """What a call did: counts, and id and message of each image that failed."""

    written: int
    kept: int
    failures: tuple[tuple[str, str], ...]


def segment_images(
    predictor: Predictor,
    images: Sequence[ImageFile],
    out: Path,
    *,
    overlays: bool = True,
    resume: bool = True,
    progress: Callable[[], None] = lambda: None,
) -> SegmentReport:
    """Writes `masks/<id>.png` and `overlays/<id>.png`; failures go into `failures.jsonl`, never ending the call.

    Args:
        predictor: the model.
        images: what to segment.
        out: folder for the results.
        overlays: write the overlays too.
        resume: keep masks that exist.
        progress: called after each image.
    """
    written = kept = 0
    failures = []
    palette = predictor.segmentor.palette
    for image in images:
        mask = out / "masks" / f"{image.id}.png"
        overlay = out / "overlays" / f"{image.id}.png"
        if resume and mask.is_file() and (overlay.is_file() or not overlays):
            kept += 1
        else:
            try:
                rgb = decode_image(image.path)
                labels = predictor.labels(rgb)
                if overlays:
                    save_overlay(overlay, rgb, labels, palette)
                save_label_map(mask, labels, palette)
                written += 1
            except ImageError as error:
                failures.append((image.id, str(error)))
        progress()
    if failures or (out / "failures.jsonl").is_file():
        lines = "".join(json.dumps({"id": id_, "message": message}) + "\n" for id_, message in failures)
        with atomic_file(out / "failures.jsonl", out) as file:
            file.write(lines.encode())
    return SegmentReport(written, kept, tuple(failures))

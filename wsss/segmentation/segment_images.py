"""A trained model over a folder of photos, as `tagclip segment` does it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagclip.errors import ImageError
from tagclip.image_lists import ImageFile
from tagclip.images import decode_image
from tagclip.stored_files import StoredFile
from tagclip.text_files import json_text
from wsss.files.atomic import atomic_file, disk_errors, is_whole
from wsss.files.classes import write_classes
from wsss.files.locks import folder_lock
from wsss.files.provenance import claim_folder
from wsss.segmentation.overlays import save_label_map, save_overlay
from wsss.segmentation.predictor import Predictor

SETTINGS = "segmentation.json"  # what made the folder
SCRATCH = ".partial"


@dataclass(frozen=True)
class SegmentReport:
    """What a call did: counts, and a record of each image that failed, as in failures.jsonl."""

    written: int
    kept: int
    failures: tuple[dict[str, str], ...]


def segment_images(
    predictor: Predictor,
    images: Sequence[ImageFile],
    out: Path,
    *,
    checkpoint: str,
    overlays: bool = True,
    overwrite: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> SegmentReport:
    """Writes `masks/<id>.png` and `overlays/<id>.png`; failures go into `failures.jsonl`, never ending the call.

    Args:
        predictor: the model.
        images: what to segment.
        out: folder for the results. It keeps what made it in `segmentation.json` and its labels in `classes.json`;
            whole results of the same work are kept, so that the same call resumes one that was killed.
        checkpoint: digest of the model's file (`wsss.files.digests.file_digest`).
        overlays: write the overlays too.
        overwrite: drop results of other work that are in the folder.
        progress: called after each image.

    Raises:
        UsageError: the folder holds other files.
        RunError: the folder holds results of another checkpoint, other classes or other options; a full disk; another
            process at work in it.
    """
    settings = {
        "checkpoint": checkpoint,
        "classes": list(predictor.segmentor.classes),
        "palette": [list(colour) for colour in predictor.segmentor.palette],
        "options": dataclasses.asdict(predictor.config),
    }
    with folder_lock(out, f"--out {out}"):
        claim_folder(out, SETTINGS, settings, overwrite=overwrite, name=f"--out {out}", what="holds results")
        write_classes(out, predictor.segmentor.classes, predictor.segmentor.palette)
        scratch = out / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)  # what a killed call left half written
        with disk_errors(scratch):
            scratch.mkdir()
        try:
            return _segment(predictor, images, out, overlays, progress)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _segment(
    predictor: Predictor, images: Sequence[ImageFile], out: Path, overlays: bool, progress: Callable[[], None]
) -> SegmentReport:
    written = kept = 0
    failures: list[dict[str, str]] = []
    palette, scratch = predictor.segmentor.palette, out / SCRATCH
    for image in images:
        mask = out / "masks" / f"{image.id}.png"
        overlay = out / "overlays" / f"{image.id}.png"
        if _is_there(mask) and (not overlays or _is_there(overlay)):
            kept += 1
        else:
            try:
                rgb = decode_image(image.path)
                labels = predictor.labels(rgb)
                if overlays:
                    save_overlay(overlay, rgb, labels, palette, scratch=scratch)
                save_label_map(mask, labels, palette, scratch=scratch)
                written += 1
            except ImageError as error:
                failures.append(
                    {
                        "id": image.id,
                        "path": str(image.path) if isinstance(image.path, StoredFile) else image.path.as_posix(),
                        "stage": "segment",
                        "error": type(error).__name__,
                        "message": " ".join(str(error).split()),
                    }
                )
        progress()
    if failures or (out / "failures.jsonl").is_file():
        lines = "".join(json_text(record) + "\n" for record in failures)
        with atomic_file(out / "failures.jsonl", scratch, durable=True) as file:
            file.write(lines.encode())
    return SegmentReport(written, kept, tuple(failures))


def _is_there(path: Path) -> bool:
    return path.is_file() and is_whole(path)

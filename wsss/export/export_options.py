"""What an export is asked for: settings that formats share, and those of a few."""

from __future__ import annotations

from dataclasses import dataclass

from tagclip.errors import UsageError

PHOTO_MODES = ("copy", "symlink", "hardlink", "none")
INSTANCE_MODES = ("class", "component")
IGNORED_MODES = ("background", "label")
SMALLEST_POLYGON = 10  # pixels; smaller parts of a mask are no polygon


@dataclass(frozen=True)
class ExportOptions:
    """Settings of an export.

    Attributes:
        photos: "copy", "symlink" or "hardlink" the photos into the export, or "none": annotations only, which name the
            photos by their paths below the run's image root.
        split: lists and their shares, "train=0.9,val=0.1", or the name of the one list; None: the format's own name.
        seed: of the split.
        min_confidence: leave out a tag whose score is below this, and, where the run has confidence maps, one whose
            pixels' mean confidence is; its pixels become ignored. In [0, 1]; None: keep all.
        only_checked: export only images that a person has checked.
        instances: one annotation per "class" of an image, or per connected "component" (coco, datumaro,
            label-studio, cvat).
        stuff: classes, or super-classes of the vocabulary, that are stuff (coco, coco-panoptic); all others are things.
        polygons: polygons instead of run lengths (coco).
        ignored: what ignored pixels become in cvat's mask format: "background", or a "label" of their own.
        bom: begin the CSV file with a byte order mark, by which spreadsheets know UTF-8.
        smallest: parts with fewer pixels are left out and counted (yolo).

    Raises:
        UsageError: a value that is none of these.
    """

    photos: str = "copy"
    split: str | None = None
    seed: int = 0
    min_confidence: float | None = None
    only_checked: bool = False
    instances: str = "class"
    stuff: tuple[str, ...] = ()
    polygons: bool = False
    ignored: str = "background"
    bom: bool = False
    smallest: int = SMALLEST_POLYGON

    def __post_init__(self) -> None:
        for name, value, known in (
            ("photos", self.photos, PHOTO_MODES),
            ("instances", self.instances, INSTANCE_MODES),
            ("ignored", self.ignored, IGNORED_MODES),
        ):
            if value not in known:
                raise UsageError(f"{name} {value!r} is not one of {', '.join(known)}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence {self.min_confidence!r} is not a number between 0 and 1")

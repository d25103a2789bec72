"""What the demo has shown: one table and one picture of all stages, from the files that they left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.errors import UsageError
from tagclip.images import decode_image
from tagclip.vocabulary import Vocabulary
from wsss.files.mask_files import read_mask
from wsss.review.panels import PictureConfig, below, contact_sheet, legend, mask_panel, panel_row

PANEL = PictureConfig(height=190)


def demo_table(root: Path) -> str:
    """Markdown table of the figures below a demo folder; stages that were left out have no row.

    Raises:
        UsageError: no figures there.
    """
    rows = []
    if tags := _read(root / "tags.json"):
        place = f"{tags['images']} scenes, known styles"
        rows.append(("tags: mAP", place, tags["mean_ap"]))
        rows.append(("tags: micro-F1", place, tags["micro"]["f1"]))
    if masks := _read(root / "masks.json"):
        rows.append(("pseudo masks: mIoU", f"{masks['images']} scenes, known styles", masks["miou"]))
    if summary := _read(root / "run" / "segmentation" / "summary.json"):
        held_out = len(list((root / "held_out" / "JPEGImages").glob("*")))
        place = f"{held_out} scenes, held-out style"
        rows += [
            (f"DeepLab trained on {outcome['title']}: mIoU", place, outcome["best"] / 100)
            for outcome in summary["outcomes"]
            if outcome["best"] is not None
        ]
    if not rows:
        raise UsageError(f"{root}: no figures of the demo there")
    lines = ["| what | judged on | % |", "|---|---|---:|"]
    lines += [f"| {what} | {place} | {100 * value:.1f} |" for what, place, value in rows]
    return "\n".join(lines) + "\n"


def demo_picture(root: Path, count: int = 3) -> np.ndarray:
    """Rows of known and of held-out scenes (image, true mask, predicted mask), and a legend of the classes in them.

    Args:
        root: the demo's folder, with `run`, `scenes`, and `predictions` if DeepLab was trained.
        count: scenes of each kind.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UsageError: no masks there.
        ImageError: an image or mask that cannot be read.
    """
    vocabulary = Vocabulary.named("voc")
    kinds = [("scenes", "run/masks", "pseudo mask"), ("held_out", "predictions/masks", "DeepLab")]
    rows: list[np.ndarray] = []
    shown: set[int] = set()
    for data, predictions, title in kinds:
        found = sorted((root / predictions).glob("*.png"))
        for place in np.unique(np.linspace(0, len(found) - 1, count).astype(int)) if found else ():
            name = found[place].stem
            rgb = decode_image(root / data / "JPEGImages" / f"{name}.jpg")
            masks = {"true mask": read_mask(root / data / "SegmentationClass" / f"{name}.png")}
            masks[title] = read_mask(found[place])
            shown.update(*map(_classes, masks.values()))
            panels = [(name, rgb)]
            panels += [(f"{kind}: {_named(mask, vocabulary)}", _shown(rgb, mask, vocabulary))
                       for kind, mask in masks.items()]  # fmt: skip
            rows.append(panel_row(panels, PANEL))
    if not rows:
        raise UsageError(f"{root}: no masks of the demo there")
    sheet = contact_sheet(rows, PictureConfig(columns=2))
    colours = [(vocabulary.names[index], vocabulary.palette[index + 1].tolist()) for index in sorted(shown)]
    return below([sheet, legend(colours, sheet.shape[1], PANEL)])


def _classes(mask: np.ndarray) -> list[int]:
    """Indices of the classes in a mask."""
    return [label - 1 for label in np.unique(mask).tolist() if 0 < label < np.iinfo(mask.dtype).max]


def _named(mask: np.ndarray, vocabulary: Vocabulary) -> str:
    return ", ".join(vocabulary.names[index] for index in _classes(mask))


def _shown(rgb: np.ndarray, mask: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    return mask_panel(rgb, mask, vocabulary.label_palette, PANEL)


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

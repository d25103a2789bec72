"""YOLO segmentation: one text file of polygons per image, data.yaml.

A line is `class x y x y ...`: class ids from 0, outlines through border pixels as shares of width and height. Each
connected part is one polygon; holes hang on bridges of no width. Background and ignored pixels are never written: a
trainer takes both for background. Scores have no place. An image without tags has an empty file, which trainers read
as a background image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from tagclip.errors import UsageError
from wsss.export.coco import polygon_notes
from wsss.export.format_writer import ExportSample, FormatWriter, file_stem, list_lines_of, require_same
from wsss.export.mask_regions import bridged, pixel_rings

DATA_FILE = "data.yaml"
SHORTEST = 3  # corners of a polygon
# Where in its border pixels an outline runs: readers that round (supervision) and those that cut (ultralytics)
# both find the pixel again.
INSIDE = 0.25

GUIDE = """# YOLO segmentation

`data.yaml` with `images/SPLIT/` and `labels/SPLIT/`, parallel trees. Ignored pixels are background here, and scores
are lost.

- ultralytics: `yolo segment train data=data.yaml model=yolo11n-seg.pt`. `path` in data.yaml is {path}
- supervision: `DetectionDataset.from_yolo("images/{split}", "labels/{split}", "data.yaml", force_masks=True)`
- Roboflow: drop `images/{split}`, `labels/{split}` and `data.yaml` onto *Upload*
- CVAT: format *Ultralytics YOLO Segmentation 1.0*
"""


class YoloWriter(FormatWriter):
    """See the module."""

    def add(self, sample: ExportSample) -> None:
        height, width = sample.labels.shape
        scale = np.array([width, height], np.float64)
        lines = []
        for region in self.job.regions(sample, parts=True):
            rings, pixels = pixel_rings(region.pixels), int(region.pixels.sum())
            polygon = bridged(rings)
            if pixels < self.job.options.smallest or len(polygon) < SHORTEST:
                self.counts["small"] += 1
                self.counts["small pixels"] += pixels
                continue
            self.counts["holes"] += len(rings) - 1
            numbers = ((polygon + INSIDE) / scale).ravel()
            lines.append(f"{region.index} " + " ".join(f"{number:.7g}" for number in numbers.tolist()))
        self.counts["annotations"] += len(lines)
        self.job.folder.write(f"labels/{sample.split}/{sample.name}.txt", "".join(f"{line}\n" for line in lines))

    def finish(self) -> None:
        self.job.folder.write(DATA_FILE, self._data())
        self.write_guide(GUIDE.format(split=self.job.splits[0], path=str(self.job.folder.target.absolute())))

    def _data(self) -> str:
        splits = self.job.splits
        if self.job.options.photos == "none":
            folders = {split: str(self.job.photo_root or "images") for split in splits}
        else:
            folders = {split: f"images/{split}" for split in splits}
        train = "train" if "train" in splits else splits[0]
        others = [split for split in splits if split != train]
        val = "val" if "val" in splits else (others or [train])[0]
        values = {
            "path": str(self.job.folder.target.absolute()),
            "train": folders[train],
            "val": folders[val],
            **{split: folders[split] for split in splits if split not in (train, val)},
            "names": dict(enumerate(self.vocabulary.names)),
        }
        head = "# Made by `tagclip export`; `path` is where it was written: change it when the folder moves.\n"
        return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10_000)

    def notes(self) -> list[str]:
        notes = polygon_notes(self.counts, self.job.options.smallest)
        if len(self.job.splits) == 1:
            notes.append("data.yaml validates on the training images; --split train=0.9,val=0.1 sets some aside")
        return notes

    def known(self, folder: Path) -> set[str]:
        path = folder / DATA_FILE
        if path.is_file():
            try:
                names = yaml.safe_load("\n".join(list_lines_of(path)))["names"]
                there = dict(names) if isinstance(names, dict) else dict(enumerate(names))
            except (yaml.YAMLError, KeyError, TypeError, ValueError):
                raise UsageError(f"--merge-into: {path} has no `names`") from None
            ours = dict(enumerate(self.vocabulary.names))
            require_same(str(path), {key: there.get(key) for key in ours}, ours)
        top = folder / "labels"
        return {
            file_stem(path.relative_to(split).as_posix())
            for split in (sorted(top.iterdir()) if top.is_dir() else ())
            for path in split.rglob("*.txt")
        }

"""COCO panoptic: a PNG of segment ids per image, and a list of segments.

Segment id = R + 256 G + 256^2 B. A stuff class is one segment, a thing has one per connected part; ids are unique
within the image and near the class's colour. Background and ignored pixels are 0, which panoptic tools take for
unlabelled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wsss.export.coco import (
    coco_categories,
    coco_head,
    coco_image,
    combined_coco,
    is_coco_file,
    known_of_coco,
    scores_of,
)
from wsss.export.format_writer import ExportJob, ExportSample, FormatWriter
from wsss.export.json_parts import JsonLists
from wsss.export.mask_regions import bounding_box

FORMAT_KEY = "panoptic"
IDS = 256**3

GUIDE = """# COCO panoptic

`annotations/panoptic_SPLIT.json`, its PNGs in `annotations/panoptic_SPLIT/`, photos in `images/SPLIT/`. Segment id =
R + 256 G + 65536 B; 0 is unlabelled (background and ignored). Things have a segment per connected part, stuff one per
class.

- panopticapi: `rgb2id(numpy.asarray(PIL.Image.open(png)))`
- datumaro: `Dataset.import_from("THIS_FOLDER", "coco_panoptic")`
- mmdet: `CocoPanopticDataset` with `ann_file="annotations/panoptic_{split}.json"`,
  `data_prefix=dict(img="images/{split}", seg="annotations/panoptic_{split}")`
"""


class CocoPanopticWriter(FormatWriter):
    """See the module."""

    used = frozenset({"stuff"})

    def __init__(self, job: ExportJob):
        super().__init__(job)
        self.categories = coco_categories(job)
        self.files = {
            split: JsonLists(job.folder.parts, f"panoptic-{split}", ("images", "annotations")) for split in job.splits
        }

    def add(self, sample: ExportSample) -> None:
        ids = np.zeros(sample.labels.shape, np.uint32)
        segments: list[dict[str, Any]] = []
        taken: set[int] = set()
        for is_thing in (False, True):
            for region in self.job.regions(sample, parts=is_thing):
                if is_thing == (region.index in self.job.stuff):
                    continue
                number = self._number(region.index, taken)
                ids[region.pixels] = number
                segments.append(
                    {
                        "id": number,
                        "category_id": region.index + 1,
                        "area": int(region.pixels.sum()),
                        "bbox": list(bounding_box(region.pixels)),
                        "iscrowd": 0,
                    }
                    | scores_of(region)
                )
        target = self.job.folder.path(f"annotations/{FORMAT_KEY}_{sample.split}/{sample.name}.png")
        colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)
        Image.fromarray(colours).save(target, format="PNG")
        file = self.files[sample.split]
        file.add("images", coco_image(sample, self.job))
        file.add(
            "annotations",
            {"image_id": sample.number, "file_name": f"{sample.name}.png", "segments_info": segments},
        )
        self.counts["annotations"] += len(segments)

    def _number(self, index: int, taken: set[int]) -> int:
        red, green, blue = self.vocabulary.label_palette[index + self.job.first].tolist()
        number = max(1, red + 256 * green + 256**2 * blue)
        while number in taken:
            number = number % (IDS - 1) + 1
        taken.add(number)
        return number

    def finish(self) -> None:
        for split, file in self.files.items():
            target = self.job.folder.path(f"annotations/{FORMAT_KEY}_{split}.json")
            file.finish(target, {**coco_head(), "categories": self.categories})
        self.write_guide(GUIDE.format(split=self.job.splits[0]))

    def known(self, folder: Path) -> set[str]:
        return known_of_coco(folder, FORMAT_KEY)

    def combine(self, name: str, there: Path, new: Path) -> str | None:
        return combined_coco(there, new, _move) if is_coco_file(name) else None


def _move(annotation: dict[str, Any], categories: dict[int, int]) -> None:
    for segment in annotation["segments_info"]:
        segment["category_id"] = categories[segment["category_id"]]

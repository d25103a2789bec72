"""COCO instances: run lengths by pycocotools (or polygons), scores, stuff and things.

Category ids are class index + 1; image ids are the run's stable numbers. Background and ignored pixels have no
annotation: for COCO both are "nothing said". `score` is the tag's score, `confidence` the mean probability of the
pixels where the run has confidence maps; `tags` of an image are all of its tags, also those without a pixel.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.errors import UsageError
from tagclip.text_files import json_text
from wsss.export.format_writer import PRODUCER, ExportJob, ExportSample, FormatWriter, MaskRegion, file_stem, read_data
from wsss.export.json_parts import JsonLists
from wsss.export.mask_regions import bounding_box, bridged, coco_rle, connected_parts, edge_rings

FORMAT_KEY = "instances"

GUIDE = """# COCO

`annotations/instances_SPLIT.json` with `images/SPLIT/`. Category ids are 1 to {classes}; {kind}. `score` is the tag's
score. Background and ignored pixels have no annotation.

- pycocotools: `COCO("annotations/instances_{split}.json").annToMask(annotation)`
- supervision: `DetectionDataset.from_coco("images/{split}", "annotations/instances_{split}.json", force_masks=True)`
- FiftyOne: `fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.COCODetectionDataset, data_path="images/{split}",
  labels_path="annotations/instances_{split}.json", label_types="segmentations", use_polylines=False)`
- CVAT: Upload annotations, format *COCO 1.0*, the JSON file; format `cvat` keeps tags and scores as well
- Roboflow and others that take run lengths only with `iscrowd` 1, or not at all: export with `--polygons`
"""


class CocoWriter(FormatWriter):
    """See the module."""

    used = frozenset({"instances", "stuff", "polygons"})

    def __init__(self, job: ExportJob):
        super().__init__(job)
        self.categories = coco_categories(job)
        self.files = {
            split: JsonLists(job.folder.parts, f"coco-{split}", ("images", "annotations")) for split in job.splits
        }
        self.ids = dict.fromkeys(job.splits, 0)

    def add(self, sample: ExportSample) -> None:
        annotations = [self._annotation(region, sample) for region in self.job.regions(sample)]
        file = self.files[sample.split]
        file.add("images", coco_image(sample, self.job))
        for annotation in annotations:
            self.ids[sample.split] += 1
            file.add("annotations", {"id": self.ids[sample.split], **annotation})
            self.counts["annotations"] += 1

    def _annotation(self, region: MaskRegion, sample: ExportSample) -> dict[str, Any]:
        segmentation = self._polygons(region.pixels) if self.job.options.polygons else coco_rle(region.pixels)
        annotation = {
            "image_id": sample.number,
            "category_id": region.index + 1,
            "segmentation": segmentation,
            "area": int(region.pixels.sum()),
            "bbox": list(bounding_box(region.pixels)),
            "iscrowd": 0,
        }
        return annotation | scores_of(region)

    def _polygons(self, pixels: np.ndarray) -> list[list[float]]:
        polygons = []
        for part in connected_parts(pixels):
            rings = edge_rings(part)
            self.counts["holes"] += len(rings) - 1
            polygons.append(bridged(rings).ravel().astype(float).tolist())
        return polygons

    def finish(self) -> None:
        for split, file in self.files.items():
            target = self.job.folder.path(f"annotations/{FORMAT_KEY}_{split}.json")
            file.finish(target, {**coco_head(), "categories": self.categories})
        kind = (
            "polygons, holes on bridges of no width"
            if self.job.options.polygons
            else "masks are compressed run lengths"
        )
        self.write_guide(GUIDE.format(classes=len(self.vocabulary), kind=kind, split=self.job.splits[0]))

    def notes(self) -> list[str]:
        return polygon_notes(self.counts, self.job.options.smallest)

    def known(self, folder: Path) -> set[str]:
        return known_of_coco(folder, FORMAT_KEY)

    def combine(self, name: str, there: Path, new: Path) -> str | None:
        return combined_coco(there, new) if is_coco_file(name) else None


def scores_of(region: MaskRegion) -> dict[str, float]:
    """The scores that are known, by key."""
    values = {"score": region.best_score, "confidence": region.confidence}
    return {key: value for key, value in values.items() if value is not None}


def polygon_notes(counts: Mapping[str, int], smallest: int) -> list[str]:
    """What polygons have lost."""
    notes = []
    if counts.get("small"):
        notes.append(
            f"{counts['small']} parts of fewer than {smallest} pixels left out ({counts['small pixels']} pixels)"
        )
    if counts.get("holes"):
        notes.append(f"{counts['holes']} holes are kept by a bridge of no width")
    return notes


def coco_head() -> dict[str, Any]:
    """`info` and `licenses`."""
    return {"info": {"description": f"Pseudo masks, made by {PRODUCER}", "version": "1.0"}, "licenses": []}


def coco_categories(job: ExportJob) -> list[dict[str, Any]]:
    """One category per class, ids from 1."""
    vocabulary = job.vocabulary
    coarse = vocabulary.coarse_names
    return [
        {
            "id": index + 1,
            "name": name,
            "supercategory": coarse[vocabulary.coarse[index]] if coarse and vocabulary.coarse else name,
            "isthing": int(index not in job.stuff),
            "color": vocabulary.label_palette[index + job.first].tolist(),
        }
        for index, name in enumerate(vocabulary.names)
    ]


def coco_image(sample: ExportSample, job: ExportJob) -> dict[str, Any]:
    """An entry of `images`."""
    image: dict[str, Any] = {
        "id": sample.number,
        "file_name": sample.file_name,
        "width": sample.size.width,
        "height": sample.size.height,
        "tags": [job.vocabulary.names[index] for index in sample.tags],
    }
    return image | ({"state": sample.state} if sample.state else {})


def is_coco_file(name: str) -> bool:
    """Whether a file of an export is one of annotations."""
    return name.startswith("annotations/") and name.endswith(".json")


def known_of_coco(folder: Path, kind: str) -> set[str]:
    """Names of the images in all files of annotations.

    Raises:
        UsageError: none there, or no COCO. RunError: one cannot be read.
    """
    files = sorted((folder / "annotations").glob(f"{kind}_*.json"))
    if not files:
        raise UsageError(f"--merge-into {folder}: no annotations/{kind}_*.json there")
    return {file_stem(str(image["file_name"])) for path in files for image in _lists(read_data(path), path)["images"]}


def combined_coco(there: Path, new: Path, move: Callable[[dict[str, Any], dict[int, int]], None] | None = None) -> str:
    """A file with all that is there, and the images and annotations of the new one.

    Categories go by name: the ids that are there stay, names that are new get the next ones. Ids of images and
    annotations that are taken are replaced.

    Args:
        move: gives a new annotation its categories' ids; None: `category_id` is one of them.
    """
    old, fresh = _lists(read_data(there), there), _lists(read_data(new), new)
    by_name = {one["name"]: one["id"] for one in old["categories"]}
    next_id = max((int(one["id"]) for one in old["categories"]), default=0) + 1
    categories: dict[int, int] = {}
    for category in fresh["categories"]:
        if category["name"] not in by_name:
            old["categories"].append({**category, "id": next_id})
            by_name[category["name"]] = next_id
            next_id += 1
        categories[category["id"]] = by_name[category["name"]]
    taken = {int(one["id"]) for one in old["images"]}
    free = max([0, *taken, *(int(one["id"]) for one in fresh["images"])]) + 1
    images: dict[int, int] = {}
    for image in fresh["images"]:
        number = image["id"]
        if number in taken:
            number, free = free, free + 1
        images[image["id"]] = number
        taken.add(number)
        old["images"].append({**image, "id": number})
    next_id = max((int(one.get("id", 0)) for one in old["annotations"]), default=0) + 1
    for annotation in fresh["annotations"]:
        annotation["image_id"] = images[annotation["image_id"]]
        if move is not None:
            move(annotation, categories)
        else:
            annotation["category_id"] = categories[annotation["category_id"]]
            annotation["id"] = next_id
            next_id += 1
        old["annotations"].append(annotation)
    return json_text(old) + "\n"


def _lists(content: dict[str, Any], path: Path) -> dict[str, Any]:
    wrong = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    names = [
        json.dumps(one)[:60]
        for one in content.get("images") or ()
        if not isinstance(one, dict) or "file_name" not in one
    ]
    if wrong or names:
        raise UsageError(f"{path}: no COCO file ({f'no list {wrong[0]!r}' if wrong else f'image {names[0]}'})")
    return content

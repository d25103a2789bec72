"""Datumaro's own format: masks as COCO run lengths, tags as labels, scores as attributes.

From there `datum convert` leads to some forty other formats. Label ids are class indices from 0; background and
ignored pixels have no annotation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tagclip.errors import UsageError
from tagclip.text_files import json_text
from wsss.export.coco import scores_of
from wsss.export.format_writer import ExportJob, ExportSample, FormatWriter, read_data, require_same
from wsss.export.json_parts import JsonLists
from wsss.export.mask_regions import coco_rle

FORMAT_VERSION = "1.0"
IMAGE_MEDIA = 2  # datumaro's MediaType.IMAGE

GUIDE = """# Datumaro

`annotations/SPLIT.json` with `images/SPLIT/`.

- Python: `datumaro.Dataset.import_from("THIS_FOLDER", "datumaro")`
- other formats: `datum convert -i THIS_FOLDER -if datumaro -f FORMAT -o OUT -- --save-media`
"""


class DatumaroWriter(FormatWriter):
    """See the module."""

    used = frozenset({"instances"})

    def __init__(self, job: ExportJob):
        super().__init__(job)
        self.files = {split: JsonLists(job.folder.parts, f"datumaro-{split}", ("items",)) for split in job.splits}

    def add(self, sample: ExportSample) -> None:
        annotations: list[dict[str, Any]] = []
        for region in self.job.regions(sample):
            mask = {"type": "mask", "label_id": region.index, "rle": coco_rle(region.pixels), "z_order": 0}
            annotations.append(mask | {"attributes": scores_of(region)})
        for index in sample.tags:
            score = sample.score(index)
            tag = {"type": "label", "label_id": index, "attributes": {} if score is None else {"score": score}}
            annotations.append(tag)
        for number, annotation in enumerate(annotations):
            annotation.update({"id": number, "group": 0, "object_id": -1})
        item = {
            "id": sample.name,
            "annotations": annotations,
            "attr": {"state": sample.state} if sample.state else {},
            "image": {"path": sample.file_name, "size": [sample.size.height, sample.size.width]},
        }
        self.files[sample.split].add("items", item)
        self.counts["annotations"] += len(annotations)

    def finish(self) -> None:
        colours = self.vocabulary.label_palette[self.job.first :].tolist()
        labels = [{"name": name, "parent": "", "attributes": []} for name in self.vocabulary.names]
        colormap = [
            {"label_id": index, "r": red, "g": green, "b": blue} for index, (red, green, blue) in enumerate(colours)
        ]
        head = {
            "dm_format_version": FORMAT_VERSION,
            "media_type": IMAGE_MEDIA,
            "infos": {},
            "categories": {
                "label": {"labels": labels, "label_groups": [], "attributes": ["score", "confidence"]},
                "mask": {"colormap": colormap},
            },
        }
        for split, file in self.files.items():
            file.finish(self.job.folder.path(f"annotations/{split}.json"), head)
        self.write_guide(GUIDE)

    def known(self, folder: Path) -> set[str]:
        found = set()
        for path in sorted((folder / "annotations").glob("*.json")):
            content = read_data(path)
            try:
                names = [label["name"] for label in content["categories"]["label"]["labels"]]
                found |= {str(item["id"]) for item in content["items"]}
            except (KeyError, TypeError):
                raise UsageError(f"--merge-into: {path} is no file of datumaro's") from None
            require_same(str(path), names, list(self.vocabulary.names))
        return found

    def combine(self, name: str, there: Path, new: Path) -> str | None:
        if not name.startswith("annotations/"):
            return None
        content = read_data(there)
        content["items"].extend(read_data(new)["items"])
        return json_text(content) + "\n"

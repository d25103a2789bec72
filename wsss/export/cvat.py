"""CVAT: *Segmentation mask 1.1* (colours, a label map) and *CVAT for images 1.1* (masks as run lengths, tags, scores).

Both are written, for the same photos; an annotation file is uploaded to a task that has them. In the masks ignored
pixels are background, or, with `--ignored label`, a label of their own. In the XML background and ignored pixels have
no shape.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image

from tagclip.errors import UsageError
from wsss.export.format_writer import (
    ExportJob,
    ExportSample,
    FormatWriter,
    SplitLists,
    file_stem,
    joined_lists,
    unique_colours,
)
from wsss.export.mask_regions import bounding_box, row_runs
from wsss.export.voc import IGNORED, LABEL_MAP, known_of_lists, label_map_names, label_map_text, renamed_notes
from wsss.files.atomic import disk_errors
from wsss.files.mask_files import IGNORE_COLOUR

MASKS = "segmentation-mask-1.1"
LABELS = "labels.json"
BACKGROUND = "background"

GUIDE = """# CVAT

1. Create a task; *Raw* in the label constructor: paste `labels.json`. Select the files of `images/` (or connect the
   folder as a share: names with folders are kept).
2. *Upload annotations*, one of:
   - *CVAT 1.1*: `{shapes}`: masks as run lengths, tags, scores as attributes;
   - *Segmentation mask 1.1*: a ZIP of what `{masks}/` holds: `cd {masks} && zip -r ../masks.zip .`

In the masks background is 0,0,0 and ignored pixels are {ignored}.
"""


class CvatWriter(FormatWriter):
    """See the module."""

    default_split = "default"
    photo_folder = "images"
    used = frozenset({"instances", "ignored"})

    def __init__(self, job: ExportJob):
        super().__init__(job)
        colours = unique_colours(job.vocabulary)
        first = job.first
        # One table for masks with and without a background class: 0 background, class c as c + 1, then ignored.
        self.colours = np.concatenate([np.zeros((1, 3), np.uint8), colours[first:], [IGNORE_COLOUR]]).astype(np.uint8)
        self.has_ignored = job.options.ignored == "label"
        taken = (BACKGROUND, IGNORED)
        self.classes = label_map_names(job, taken)[first:]
        self.names = [BACKGROUND, *self.classes, *([IGNORED] if self.has_ignored else [])]
        self.lists = SplitLists()
        self.xml: dict[str, tuple[Path, BinaryIO]] = {}
        for split in job.splits:
            path = job.folder.parts / f"cvat-{split}.xml"
            with disk_errors(path):
                self.xml[split] = (path, path.open("w+b"))
        self.frames = dict.fromkeys(job.splits, 0)

    def add(self, sample: ExportSample) -> None:
        labels = sample.labels
        ignored = labels == self.job.ignored
        places = np.where(ignored, 0, labels.astype(np.int64) + 1 - self.job.first)
        if self.has_ignored:
            places[ignored] = len(self.colours) - 1
        buffer = io.BytesIO()
        Image.fromarray(self.colours[places]).save(buffer, format="PNG")
        text = self._image(sample)
        self.job.folder.write(f"{MASKS}/SegmentationClass/{sample.name}.png", buffer.getvalue())
        self.lists.add(sample.split, sample.name)
        path, file = self.xml[sample.split]
        with disk_errors(path):
            file.write(text.encode())

    def _image(self, sample: ExportSample) -> str:
        names, lines = self.classes, []
        for region in self.job.regions(sample):
            left, top, width, height = bounding_box(region.pixels)
            runs = ", ".join(map(str, row_runs(region.pixels[top : top + height, left : left + width])))
            place = f'left="{left}" top="{top}" width="{width}" height="{height}" z_order="0"'
            head = f'<mask label={quoteattr(names[region.index])} source="auto" occluded="0" rle="{runs}" {place}>'
            lines.append(f"    {head}{_score(region.best_score)}</mask>\n")
        self.counts["annotations"] += len(lines)
        for index in sample.tags:
            head = f'<tag label={quoteattr(names[index])} source="auto">'
            lines.append(f"    {head}{_score(sample.score(index))}</tag>\n")
        head = (
            f'  <image id="{self.frames[sample.split]}" name={quoteattr(sample.file_name)} width="{sample.size.width}" '
            f'height="{sample.size.height}">\n'
        )
        self.frames[sample.split] += 1
        return f"{head}{''.join(lines)}  </image>\n"

    def finish(self) -> None:
        folder = self.job.folder
        for split, (path, file) in self.xml.items():
            folder.write(f"{MASKS}/ImageSets/Segmentation/{split}.txt", self.lists.text(split))
            with disk_errors(path):
                file.seek(0)
                head = self._meta(split, len(self.lists.lines.get(split, ())))
                with folder.path(shapes_file(split)).open("wb") as out:
                    out.write(head.encode())
                    while block := file.read(1 << 20):
                        out.write(block)
                    out.write(b"</annotations>\n")
                file.close()
                path.unlink()
        folder.write(f"{MASKS}/{LABEL_MAP}", self._label_map())
        folder.write_json(LABELS, self._labels())
        ignored = "a label of their own" if self.has_ignored else "background, too (`--ignored label` keeps them apart)"
        self.write_guide(GUIDE.format(shapes=shapes_file(self.job.splits[0]), masks=MASKS, ignored=ignored))

    def _label_map(self) -> str:
        return label_map_text(self.names, self.colours[: len(self.names)])

    def _labels(self) -> list[dict]:
        attribute = {"name": "score", "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        colours = self.vocabulary.label_palette[self.job.first :].tolist()
        return [
            {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*colour), "type": "any", "attributes": [attribute]}
            for name, colour in zip(self.classes, colours, strict=True)
        ]

    def _meta(self, split: str, size: int) -> str:
        attribute = (
            "<attribute><name>score</name><mutable>False</mutable><input_type>text</input_type>"
            "<default_value></default_value><values></values></attribute>"
        )
        labels = "".join(
            f"        <label><name>{escape(one['name'])}</name><color>{one['color']}</color><type>any</type>"
            f"<attributes>{attribute}</attributes></label>\n"
            for one in self._labels()
        )
        return (
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
            f"      <name>{escape(split)}</name>\n      <size>{size}</size>\n      <mode>annotation</mode>\n"
            f"      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
        )

    def notes(self) -> list[str]:
        return renamed_notes(self.vocabulary.names, self.classes)

    def known(self, folder: Path) -> set[str]:
        found = known_of_lists(folder / MASKS, self._label_map(), has_extra_label=True)
        for path in sorted(folder.glob("*.xml")):
            found |= {file_stem(str(image.get("name"))) for image in _images(path)}
        return found

    def combine(self, name: str, there: Path, new: Path) -> str | bytes | None:
        if "/ImageSets/" in name:
            return joined_lists(there, new)
        return _combined_xml(there, new) if name.endswith(".xml") and "/" not in name else None


def shapes_file(split: str) -> str:
    """The file of *CVAT for images 1.1*, beside `images/`, as CVAT's own archives have it."""
    return "annotations.xml" if split == CvatWriter.default_split else f"{split}.xml"


def _score(score: float | None) -> str:
    return "" if score is None else f'<attribute name="score">{score:g}</attribute>'


def _parsed(path: Path) -> ElementTree.Element:
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:  # CVAT writes none, and entities can grow without end
        raise UsageError(f"{path}: has a document type, which CVAT's files have not")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UsageError(f"{path}: not XML ({error})") from None


def _images(path: Path) -> list[ElementTree.Element]:
    return _parsed(path).findall("image")


def _combined_xml(there: Path, new: Path) -> bytes:
    tree = _parsed(there)
    numbers = [int(image.get("id") or 0) for image in tree.findall("image")]
    labels = tree.find("meta/task/labels")
    if labels is None:
        labels = tree.find("meta/project/labels")
    if labels is not None:
        known = {label.findtext("name") for label in labels}
        fresh = _parsed(new).find("meta/task/labels")
        labels.extend(label for label in (() if fresh is None else fresh) if label.findtext("name") not in known)
    for number, image in enumerate(_images(new), start=max(numbers, default=-1) + 1):
        image.set("id", str(number))
        tree.append(image)
    return ElementTree.tostring(tree, encoding="utf-8", xml_declaration=True)

"""PASCAL VOC: JPEGImages, SegmentationClass (palette PNG), ImageSets, labelmap.txt.

Masks hold the run's labels: 0 background, class c as c + 1, 255 ignored (void), as VOC has it; for a vocabulary without
background class c is c. More than 255 labels need 16 bits, which palette PNGs have not: grey PNGs then, 65535 ignored.
Tags are the lists `ImageSets/Main/CLASS_SPLIT.txt`, of the images that have the class; scores have no place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss.export.format_writer import (
    ExportJob,
    ExportSample,
    FormatWriter,
    SplitLists,
    joined_lists,
    list_lines_of,
    plain_names,
    require_same,
    unique_colours,
)
from wsss.files.mask_files import IGNORE_COLOUR, encode_mask

LABEL_MAP, IGNORED = "labelmap.txt", "ignored"
LABEL_MAP_HEAD = "# label:color_rgb:parts:actions\n"
FORBIDDEN = ':,#"/\\*?<>|\n\r\t'  # in names of the label map, which are names of files, too

GUIDE = """# PASCAL VOC

`JPEGImages/` holds the photos, `SegmentationClass/` the masks (PNG whose values are labels),
`ImageSets/Segmentation/` the lists, `labelmap.txt` names and colours. Value {ignored} is ignored{background}. Scores
are not in this format.

- tagclip: `tagclip train --run THIS_FOLDER --classes CLASSES --config segmentation/deeplabv3plus_r18_custom`
- datumaro: `Dataset.import_from("THIS_FOLDER", "voc_segmentation")`; tags: format `voc`
- mmseg: `PascalVOCDataset` with `data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass")`,
  `ann_file="ImageSets/Segmentation/{split}.txt"` and the names of `labelmap.txt` as `metainfo`
"""


class VocWriter(FormatWriter):
    """See the module."""

    photo_folder = "JPEGImages"

    def __init__(self, job: ExportJob):
        super().__init__(job)
        self.colours = unique_colours(job.vocabulary)
        self.names = label_map_names(job, (IGNORED,))
        self.lists, self.tagged = SplitLists(), SplitLists()

    def add(self, sample: ExportSample) -> None:
        self.job.folder.write(f"SegmentationClass/{sample.name}.png", encode_mask(sample.labels, self.colours))
        self.lists.add(sample.split, sample.name)
        for index in sample.tags:
            self.tagged.add(f"{self.names[index + self.job.first]}_{sample.split}", f"{sample.name}  1")

    def finish(self) -> None:
        for split in self.job.splits:
            for kind in ("Segmentation", "Main"):
                self.job.folder.write(f"ImageSets/{kind}/{split}.txt", self.lists.text(split))
        for name in sorted(self.tagged.lines):
            self.job.folder.write(f"ImageSets/Main/{name}.txt", self.tagged.text(name))
        self.job.folder.write(LABEL_MAP, self._label_map())
        background = ", 0 is background" if self.vocabulary.has_background else ", 0 is the first class"
        self.write_guide(GUIDE.format(ignored=self.job.ignored, background=background, split=self.job.splits[0]))

    def notes(self) -> list[str]:
        return renamed_notes(self.vocabulary.label_names, self.names)

    def known(self, folder: Path) -> set[str]:
        return known_of_lists(folder, self._label_map(), has_extra_label=False)

    def _label_map(self) -> str:
        # Readers of colours refuse those that they do not know, so void pixels have a line, too.
        return label_map_text([*self.names, IGNORED], np.concatenate([self.colours, [IGNORE_COLOUR]]))

    def combine(self, name: str, there: Path, new: Path) -> str | None:
        return joined_lists(there, new) if name.startswith("ImageSets/") else None


def label_map_names(job: ExportJob, taken: tuple[str, ...] = ()) -> list[str]:
    """Names by mask label as a label map can hold them."""
    return plain_names(job.vocabulary.label_names, FORBIDDEN, taken)


def renamed_notes(names: Sequence[str], plain: Sequence[str]) -> list[str]:
    """What to say of class names that had to change."""
    changed = [f"{one!r} is {other!r}" for one, other in zip(names, plain, strict=True) if one != other]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return [f"class names that a label map cannot hold: {', '.join(changed[:3])}{more}"] if changed else []


def label_map_text(names: list[str], colours: np.ndarray) -> str:
    """labelmap.txt: a line `name:r,g,b::` per label."""
    lines = [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in zip(names, colours.tolist(), strict=True)]
    return LABEL_MAP_HEAD + "".join(f"{line}\n" for line in lines)


def known_of_lists(folder: Path, label_map: str, *, has_extra_label: bool) -> set[str]:
    """Names in the lists of a data set whose classes are those of this run.

    Args:
        has_extra_label: the data set may have more labels than the run, after them.

    Raises:
        UsageError: other classes or colours.
    """
    path = folder / LABEL_MAP
    if path.is_file():
        there = [line for line in list_lines_of(path) if line.strip() and not line.startswith("#")]
        ours = [line for line in label_map.splitlines() if not line.startswith("#")]
        require_same(str(path), there[: len(ours)] if has_extra_label else there, ours)
    lists = sorted((folder / "ImageSets" / "Segmentation").glob("*.txt"))
    return {line.strip() for one in lists for line in list_lines_of(one) if line.strip()}

"""The registry of export formats: names, what they are for, and the modules that write them, imported on first use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from tagclip.errors import RequirementError, UsageError
from wsss.export.format_writer import FormatWriter

EXTRA = "export"  # of setup.py


@dataclass(frozen=True)
class ExportFormat:
    """One format.

    Attributes:
        name: on the command line, and of the folder in `RUN/export`.
        module, writer: where its `FormatWriter` is.
        summary: what it is, for lists.
        packages: that writing it needs, beside those that every installation has.
    """

    name: str
    module: str
    writer: str
    summary: str
    packages: tuple[str, ...] = ()

    def load(self) -> type[FormatWriter]:
        """The writer.

        Raises:
            RequirementError: a package is missing; the message says how to get it.
        """
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise RequirementError(
                f"--format {self.name}: needs {' and '.join(missing)}: pip install 'tagclip-wsss[{EXTRA}]'"
            )
        return getattr(import_module(self.module), self.writer)


FORMATS = {
    one.name: one
    for one in (
        ExportFormat("voc", "wsss.export.voc", "VocWriter", "PASCAL VOC: photos, palette masks, lists, label map"),
        ExportFormat("coco", "wsss.export.coco", "CocoWriter", "COCO instances: run lengths or polygons, scores",
                     ("pycocotools",)),
        ExportFormat("coco-panoptic", "wsss.export.coco_panoptic", "CocoPanopticWriter",
                     "COCO panoptic: PNGs of segment ids, stuff and things"),
        ExportFormat("yolo", "wsss.export.yolo", "YoloWriter", "YOLO segmentation: polygons in text files, data.yaml"),
        ExportFormat("mmseg", "wsss.export.mmseg_layout", "MmsegWriter",
                     "MMSegmentation: ADE20K's layout and a config that reads it"),
        ExportFormat("label-studio", "wsss.export.label_studio", "LabelStudioWriter",
                     "Label Studio: predictions (brushes, choices, scores) and the labeling config"),
        ExportFormat("cvat", "wsss.export.cvat", "CvatWriter",
                     "CVAT: Segmentation mask 1.1, and CVAT for images 1.1 with masks, tags and scores"),
        ExportFormat("datumaro", "wsss.export.datumaro_json", "DatumaroWriter",
                     "Datumaro: masks, tags and scores; leads to many other formats", ("pycocotools",)),
        ExportFormat("fiftyone", "wsss.export.fiftyone_layout", "FiftyoneWriter",
                     "FiftyOne: photos, masks, tags, and a script that loads them"),
        ExportFormat("hf", "wsss.export.hf", "HfWriter",
                     "Hugging Face datasets: Parquet with photos, masks, tags and scores inside", ("pyarrow",)),
        ExportFormat("csv", "wsss.export.tables", "CsvWriter", "A table of tags, scores and coverage for spreadsheets"),
        ExportFormat("parquet", "wsss.export.tables", "ParquetWriter", "The same table for pandas and DuckDB",
                     ("pyarrow",)),
    )
}  # fmt: skip


def find_format(name: str) -> ExportFormat:
    """A format by its name.

    Raises:
        UsageError: there is none; the names are listed.
    """
    if name not in FORMATS:
        raise UsageError(f"--format {name!r}: is not one of {', '.join(FORMATS)}")
    return FORMATS[name]

"""ADE20K's layout for MMSegmentation: images/training, annotations/training, and a config that reads them.

With a background class masks hold the run's labels (0 background, class c as c + 1), and the config says
`reduce_zero_label=False`. Without one they begin at 1, 0 is ignored, and the config says `reduce_zero_label=True`, as
for ADE20K itself. 255 is ignored. More than 254 labels need 16 bits, which mmseg's own loader cuts to 8: the config
then loads them with this project's `LoadLabelMap`, and 65535 is ignored. mmseg looks for photos with one suffix: all
are .jpg here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss.export.format_writer import ExportJob, ExportSample, FormatWriter, file_stem, read_data, require_same
from wsss.files.mask_files import encode_mask
from wsss.files.provenance import config_text

CONFIG = "dataset_config.py"
CLASSES = "classes.json"
FOLDERS = {"train": "training", "val": "validation"}
MOST_SHIFTED = 254  # classes from 1 to 254: mmseg takes 255 and, after the shift, 254 for ignored

GUIDE = """# MMSegmentation (ADE20K's layout)

`images/{first}/` and `annotations/{first}/`; `dataset_config.py` holds the data set for a config of yours:

    _base_ = ["THIS_FOLDER/dataset_config.py", ...]
    # or copy `train_dataset` into train_dataloader.dataset

Masks: {meaning}. Scores and tags are not in this format.
"""


class MmsegWriter(FormatWriter):
    """See the module."""

    photo_suffix = ".jpg"

    def __init__(self, job: ExportJob):
        super().__init__(job)
        labels = job.vocabulary.label_count
        self.is_shifted = not job.vocabulary.has_background and labels < MOST_SHIFTED
        self.is_wide = labels > MOST_SHIFTED

    def image_path(self, sample: ExportSample) -> str:
        if self.job.options.photos == "none":
            return sample.file_name
        return f"images/{folder_of(sample.split)}/{sample.file_name}"

    def add(self, sample: ExportSample) -> None:
        labels = sample.labels
        palette = self.vocabulary.label_palette
        if self.is_shifted:
            labels = np.where(labels == self.job.ignored, 0, labels + 1).astype(np.uint8)
            palette = np.concatenate([np.zeros((1, 3), np.uint8), palette])
        name = f"annotations/{folder_of(sample.split)}/{sample.name}.png"
        self.job.folder.write(name, encode_mask(labels, palette))

    def finish(self) -> None:
        vocabulary = self.vocabulary
        metainfo = {"classes": list(vocabulary.label_names), "palette": vocabulary.label_palette.tolist()}
        loading = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
        values: dict = {}
        if self.is_wide:
            values["custom_imports"] = {"imports": ["wsss.mmseg_plugin"], "allow_failed_imports": False}
            loading[1] = {"type": "LoadLabelMap"}
        for split in self.job.splits:
            values[f"{split.replace('-', '_')}_dataset"] = {
                "type": "BaseSegDataset",
                "data_root": str(self.job.folder.target.absolute()),
                "data_prefix": {
                    "img_path": f"images/{folder_of(split)}", "seg_map_path": f"annotations/{folder_of(split)}"
                },
                "img_suffix": ".jpg",
                "seg_map_suffix": ".png",
                "metainfo": metainfo,
                "reduce_zero_label": self.is_shifted,
                "ignore_index": self.job.ignored if self.is_wide else 255,
                "pipeline": [*loading, {"type": "PackSegInputs"}],
            }  # fmt: skip
        head = (
            "# A data set for MMSegmentation. `data_root` is where it was written: change it when the folder moves.\n"
        )
        self.job.folder.write(CONFIG, head + config_text(values))
        self.job.folder.write_json(CLASSES, {"classes": metainfo["classes"], "first_label": int(self.is_shifted)})
        if self.is_shifted:
            meaning = "class c is c + 1, 0 is ignored, `reduce_zero_label=True`"
        else:
            zero = "0 is background, class c is c + 1" if vocabulary.has_background else "class c is c"
            meaning = f"{zero}, {self.job.ignored} is ignored, `reduce_zero_label=False`"
        self.write_guide(GUIDE.format(first=folder_of(self.job.splits[0]), meaning=meaning))

    def known(self, folder: Path) -> set[str]:
        if (folder / CLASSES).is_file():
            there = read_data(folder / CLASSES)
            require_same(str(folder / CLASSES), there.get("classes", []), list(self.vocabulary.label_names))
        top = folder / "annotations"
        return {
            file_stem(path.relative_to(split).as_posix())
            for split in (sorted(top.iterdir()) if top.is_dir() else ())
            for path in split.rglob("*.png")
        }


def folder_of(split: str) -> str:
    """ADE20K's name of a list's folder."""
    return FOLDERS.get(split, split)

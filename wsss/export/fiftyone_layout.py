"""FiftyOne: its `ImageSegmentationDirectory` (data, labels), tags as classifications in JSON, a script that loads both.

Mask targets start at 1; 0 is what FiftyOne never shows: background, and ignored pixels, too. Masks are grey: FiftyOne
reads them with OpenCV, which makes colours of a palette. Written after FiftyOne's documentation; FiftyOne itself was
not tried, as its database could not be started where this was made.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.export.format_writer import ExportJob, ExportSample, FormatWriter, file_stem, read_data, require_same
from wsss.export.json_parts import JsonLists

TARGETS, CLASSIFICATIONS, LOADER = "mask_targets.json", "classifications.json", "load_fiftyone.py"
MOST_OF_8_BITS = 255  # classes from 1, as no value is ignored here

SCRIPT = """import json
from pathlib import Path
import fiftyone as fo
root = Path(__file__).absolute().parent
targets = {int(key): name for key, name in json.loads((root / "mask_targets.json").read_text("utf-8")).items()}
images = json.loads((root / "classifications.json").read_text("utf-8"))["images"]
tags = {str(root / "data" / one["file"]): [fo.Classification(**tag) for tag in one["tags"]] for one in images}
dataset = fo.Dataset.from_dir(str(root), fo.types.ImageSegmentationDirectory, label_field="masks")
dataset.default_mask_targets = targets
for sample in dataset.iter_samples(autosave=True, progress=True):
    sample["found_tags"] = fo.Classifications(classifications=tags[sample.filepath])
fo.launch_app(dataset).wait()
"""

GUIDE = """# FiftyOne

`data/` and `labels/` are an `ImageSegmentationDirectory`; `classifications.json` holds the tags with their scores. In
an environment with FiftyOne: `python load_fiftyone.py` loads both and opens the app.

Mask values: 0 background and ignored, class c is c + 1 (`mask_targets.json`). Written after FiftyOne's documentation;
FiftyOne itself was not tried.
"""


class FiftyoneWriter(FormatWriter):
    """See the module."""

    photo_folder = "data"

    def __init__(self, job: ExportJob):
        super().__init__(job)
        self.tags = JsonLists(job.folder.parts, "classifications", ("images",))
        self.dtype = np.uint8 if len(job.vocabulary) <= MOST_OF_8_BITS else np.uint16

    def add(self, sample: ExportSample) -> None:
        labels = sample.labels
        targets = np.where(labels == self.job.ignored, 0, labels.astype(np.int64) + 1 - self.job.first)
        buffer = io.BytesIO()
        Image.fromarray(targets.astype(self.dtype)).save(buffer, format="PNG")
        self.job.folder.write(f"labels/{sample.name}.png", buffer.getvalue())
        tags = []
        for index in sample.tags:
            score = sample.score(index)
            tags.append({"label": self.vocabulary.names[index]} | ({} if score is None else {"confidence": score}))
        self.tags.add("images", {"file": sample.file_name, "split": sample.split, "tags": tags})

    def finish(self) -> None:
        self.tags.finish(self.job.folder.path(CLASSIFICATIONS), {"classes": list(self.vocabulary.names)})
        self.job.folder.write_json(TARGETS, {str(index + 1): name for index, name in enumerate(self.vocabulary.names)})
        self.job.folder.write(LOADER, SCRIPT)
        self.write_guide(GUIDE)

    def known(self, folder: Path) -> set[str]:
        if (folder / TARGETS).is_file():
            ours = {str(index + 1): name for index, name in enumerate(self.vocabulary.names)}
            require_same(str(folder / TARGETS), read_data(folder / TARGETS), ours)
        top = folder / "labels"
        return {file_stem(path.relative_to(top).as_posix()) for path in top.rglob("*.png")}

    def combine(self, name: str, there: Path, new: Path) -> str | None:
        if name != CLASSIFICATIONS:
            return None
        content = read_data(there)
        content["images"].extend(read_data(new)["images"])
        return json.dumps(content, ensure_ascii=True, indent=1) + "\n"

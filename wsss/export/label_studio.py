"""Label Studio: tasks with predictions (brush masks and choices), and the labeling config they belong to.

Its brush run lengths are its own (`brush_rle`), not COCO's: four channels per pixel, lengths of 3, 4, 8 or 16 bits.
Background and ignored pixels have no brush. The score of a prediction is the lowest score of its tags, so that
sorting by it brings doubtful images first.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import quoteattr

import numpy as np

from tagclip.errors import UsageError
from tagclip.text_files import json_text, parse_json
from wsss.export.format_writer import (
    PRODUCER,
    ExportJob,
    ExportSample,
    FormatWriter,
    file_stem,
    list_lines_of,
    require_same,
)
from wsss.export.json_parts import JsonLists

TASKS, CONFIG = "tasks.json", "labeling_config.xml"
IMAGE, BRUSH, CHOICES = "image", "masks", "tags"  # names of the tags of the labeling config
PREFIX = "/data/local-files/?d="
LENGTH_BITS = (3, 4, 8, 16)
CHANNELS = 4

GUIDE = """# Label Studio

1. Let Label Studio read local files, before it starts:
   `export LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}`
2. Create a project; *Settings*, *Labeling Interface*, *Code*: paste `labeling_config.xml`. `from_name` and `to_name`
   of the tasks are the names in it.
3. *Settings*, *Cloud Storage*, *Add Source Storage*, *Local files*, absolute local path: `{storage}`. It must be a
   folder below the document root. Do not synchronise it: the tasks come from the next step.
4. *Import*: `tasks.json`.
5. *Settings*, *Annotation*, *Live Predictions*: use predictions to prelabel, model version `{version}`.

Each task names its photo as `{prefix}PATH`, PATH below the document root, percent-encoded.
"""


class LabelStudioWriter(FormatWriter):
    """See the module."""

    photo_folder = "images"
    used = frozenset({"instances"})

    def __init__(self, job: ExportJob):
        super().__init__(job)
        self.tasks = JsonLists(job.folder.parts, "tasks", ("",))

    def add(self, sample: ExportSample) -> None:
        height, width = sample.labels.shape
        names = self.vocabulary.names
        results: list[dict[str, Any]] = []
        whole = {"original_width": width, "original_height": height, "image_rotation": 0, "to_name": IMAGE}
        for place, region in enumerate(self.job.regions(sample)):
            value = {"format": "rle", "rle": brush_rle(region.pixels), "brushlabels": [names[region.index]]}
            result = {
                "id": f"{sample.number}-{place}", "type": "brushlabels", "from_name": BRUSH, **whole, "value": value
            }  # fmt: skip
            results.append(result | ({} if region.best_score is None else {"score": region.best_score}))
        scores = [score for index in sample.tags if (score := sample.score(index)) is not None]
        lowest = min(scores, default=None)
        if sample.tags:
            value = {"choices": [names[index] for index in sample.tags]}
            result = {
                "id": f"{sample.number}-tags",
                "type": "choices",
                "from_name": CHOICES,
                "to_name": IMAGE,
                "value": value,
            }
            results.append(result | ({} if lowest is None else {"score": lowest}))
        prediction: dict[str, Any] = {"model_version": PRODUCER, "result": results}
        if lowest is not None:
            prediction["score"] = lowest
        data: dict[str, Any] = {IMAGE: PREFIX + quote(self._path(sample)), "id": sample.id, "split": sample.split}
        data["scores"] = {names[index]: sample.score(index) for index in sample.tags}
        if sample.state:
            data["state"] = sample.state
        self.tasks.add("", {"data": data, "predictions": [prediction]})
        self.counts["annotations"] += len(results)

    def _path(self, sample: ExportSample) -> str:
        if self.job.options.photos != "none":
            return self.image_path(sample)
        root = self.job.photo_root
        return f"{PurePath(root).name}/{sample.file_name}" if root else sample.file_name.lstrip("/")

    def finish(self) -> None:
        self.tasks.finish(self.job.folder.path(TASKS), {})
        self.job.folder.write(CONFIG, labeling_config(self.vocabulary.names, self._colours()))
        root, storage = self.job.folder.target.absolute(), self.job.folder.target.absolute() / "images"
        if self.job.options.photos == "none":
            storage = Path(self.job.photo_root or "/").absolute()
            root = storage.parent
        self.write_guide(GUIDE.format(root=root, storage=storage, version=PRODUCER, prefix=PREFIX))

    def _colours(self) -> list[str]:
        colours = self.vocabulary.label_palette[self.job.first :].tolist()
        return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours]

    def known(self, folder: Path) -> set[str]:
        if (folder / CONFIG).is_file():
            ours = labeling_config(self.vocabulary.names, self._colours()).splitlines()
            require_same(str(folder / CONFIG), list_lines_of(folder / CONFIG), ours)
        found = set()
        for task in _tasks(folder / TASKS):
            path = unquote(str(task["data"].get(IMAGE, "")).removeprefix(PREFIX))
            found.add(file_stem(path.removeprefix("images/")))
        return found

    def combine(self, name: str, there: Path, new: Path) -> str | None:
        if name != TASKS:
            return None
        tasks = [*_tasks(there), *_tasks(new)]
        return "[\n" + ",\n".join(json_text(task) for task in tasks) + "\n]\n"


def _tasks(path: Path) -> list[dict[str, Any]]:
    try:
        tasks = parse_json("\n".join(list_lines_of(path)))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise UsageError(f"{path}: no list of Label Studio's tasks")
    return tasks


def labeling_config(names: tuple[str, ...], colours: list[str]) -> str:
    """The labeling interface: an image, a brush per class, a choice per class."""
    brushes = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>\n"
        for name, colour in zip(names, colours, strict=True)
    )
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in names)
    return (
        "<View>\n"
        f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true" zoomControl="true"/>\n'
        f'  <BrushLabels name="{BRUSH}" toName="{IMAGE}">\n{brushes}  </BrushLabels>\n'
        f'  <Choices name="{CHOICES}" toName="{IMAGE}" choice="multiple">\n{choices}  </Choices>\n'
        "</View>\n"
    )


def brush_rle(region: np.ndarray) -> list[int]:
    """Label Studio's run lengths of a brush: bytes of a bit stream.

    The stream is the number of values (32 bits), the word size less one (5), four sizes of lengths less one (4 each),
    then the runs: 1, which of the four sizes (2 bits), the length less one, the value (8 bits). Values are RGBA, all
    four 255 inside the brush and 0 outside, pixel after pixel in reading order.

    Args:
        region: (H, W) bool.
    """
    values = region.ravel()
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, values.size)
    lengths = (CHANNELS * np.diff(ends, prepend=0)).tolist()
    bits = [f"{CHANNELS * values.size:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in LENGTH_BITS)]
    value = bool(values[0])
    longest = 2 ** LENGTH_BITS[-1]
    for length in lengths:
        word = "11111111" if value else "00000000"
        while length:
            run = min(length, longest)
            place = next(place for place, size in enumerate(LENGTH_BITS) if run <= 2**size)
            bits.append(f"1{place:02b}{run - 1:0{LENGTH_BITS[place]}b}{word}")
            length -= run
        value = not value
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))

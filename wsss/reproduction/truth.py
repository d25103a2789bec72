"""True masks and true tags in the form that the evaluation reads, made from what a data set ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.errors import UsageError
from tagclip.tag_files import write_plain
from tagclip.vocabulary import Vocabulary
from wsss.files.atomic import atomic_file, disk_errors
from wsss.files.mask_files import encode_mask, ignore_label, read_mask
from wsss.reproduction.experiments import Experiment

Progress = Callable[[int], None]


def true_masks(
    experiment: Experiment, ids: Sequence[str], data: Path, out: Path, progress: Progress = lambda done: None
) -> Path:
    """The folder of true masks; converted into `out` / "truth" where the data set has another form.

    Masks that are there from an earlier call are kept.

    Raises:
        UsageError: an experiment without masks, or a file of the data set that says something else.
    """
    source = experiment.masks
    if source is None:
        raise UsageError(f"{experiment.name}: has no true masks")
    if "folder" in source:
        return data / source["folder"]
    vocabulary, folder = Vocabulary.named(experiment.vocabulary), out / "truth"
    todo = [name for name in ids if not (folder / f"{name}.png").is_file()]
    if todo:
        if "instances" in source:
            convert = _instances(data / source["instances"], vocabulary)
        else:
            convert = _pixelmaps(data / source["pixelmaps"], vocabulary)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for done, name in enumerate(todo, 1):
            with atomic_file(folder / f"{name}.png", folder) as file:
                file.write(encode_mask(convert(name), vocabulary.label_palette))
            progress(done)
    return folder


def _instances(file: Path, vocabulary: Vocabulary) -> Callable[[str], np.ndarray]:
    """COCO instances as label maps: smaller objects lie over larger ones."""
    try:
        from pycocotools.coco import COCO
    except ImportError:
        raise UsageError('COCO\'s instances need pycocotools: pip install "tagclip-wsss[export]"') from None
    coco = COCO(str(file))
    label = {raw: index + 1 for index, raw in enumerate(sorted(coco.cats))}
    if len(label) != len(vocabulary):
        raise UsageError(f"{file}: {len(label)} categories, but {vocabulary.name!r} has {len(vocabulary)} classes")
    images = {Path(image["file_name"]).stem: image for image in coco.imgs.values()}

    def convert(name: str) -> np.ndarray:
        if name not in images:
            raise UsageError(f"{file}: knows no image {name}")
        image: dict[str, Any] = images[name]
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for one in sorted(coco.imgToAnns[image["id"]], key=lambda annotation: -annotation["area"]):
            mask[coco.annToMask(one) > 0] = label[one["category_id"]]
        return mask

    return convert


def _pixelmaps(folder: Path, vocabulary: Vocabulary) -> Callable[[str], np.ndarray]:
    """COCO-Stuff's pixel maps: raw ids become class indices, 255 stays ignored."""
    ignored = ignore_label(vocabulary.label_count)
    table = np.full(256, -1, np.int64)
    table[255] = ignored
    table[list(vocabulary.raw_ids or range(len(vocabulary)))] = np.arange(len(vocabulary))

    def convert(name: str) -> np.ndarray:
        values = read_mask(folder / f"{name}.png")
        mask = table[values]
        if (mask < 0).any():
            raise UsageError(f"{folder / name}.png: value {values[mask < 0][0]} is no raw id of {vocabulary.name}")
        return mask.astype(np.uint8)

    return convert


def labels_file(out: Path, name: str) -> Path:
    """Where `true_labels` writes the true tags of a list of that name; each list has its own."""
    return out / "lists" / f"{name}_labels.txt"


def true_labels(
    experiment: Experiment, name: str, ids: Sequence[str], data: Path, out: Path, masks: Path | None
) -> Path:
    """Folder, file or list of true tags; where the data set has none, the classes of the true masks, as a list.

    Args:
        name: of the list. ids: its images.
        masks: folder of true masks, None without any.

    Raises:
        UsageError: neither annotations nor masks.
    """
    own = experiment.labels.get("voc") or experiment.labels.get("coco")
    if own is not None and (data / own).exists():
        return data / own
    if experiment.labels.get("or") != "masks" or masks is None:
        raise UsageError(f"--data {data}: has no {own}, which holds the true tags")
    vocabulary = Vocabulary.named(experiment.vocabulary)
    first = 1 if vocabulary.has_background else 0
    rows = []
    for image in ids:
        found = np.unique(read_mask(masks / f"{image}.png"))
        rows.append((image, [int(label) - first for label in found if first <= label < len(vocabulary) + first]))
    path = labels_file(out, name)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as stream:
            write_plain(rows, stream)
    return path

"""Reads exports back with libraries that others wrote, and compares them with what the run held.

    python tests/exports/read_back.py OUT [--table FILE]

OUT is what `make_exports.py` wrote. Nothing of this project is imported: the environment is that of `make_env.sh`. A
reader that finds another mask, tag or score than the truth ends the script with an error; lossy formats have a least
mean IoU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

LEAST_IOU = 0.98  # of polygons, the mean over images and classes
SMALLEST = 10  # pixels of a part that polygons hold
BACKGROUND, IGNORED = -1, -2


@dataclass
class Truth:
    """What a run held, by name of the export."""

    folder: Path
    classes: list[str]
    has_background: bool
    images: dict[str, dict]
    masks: dict[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path) -> Truth:
        content = json.loads((folder / "truth" / "index.json").read_text(encoding="utf-8"))
        masks = {name: np.load(folder / "truth" / one["mask"]) for name, one in content["images"].items()}
        return cls(folder, content["classes"], content["has_background"], content["images"], masks)

    @property
    def wide(self) -> bool:
        """16-bit masks."""
        return len(self.classes) + self.has_background > 255

    def export(self, name: str) -> Path:
        return self.folder / "export" / name


@dataclass
class Found:
    """What a reader got: layers of classes by image, and how many images it saw."""

    masks: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, name: str, shape: tuple[int, int], layers: Iterator[tuple[int, np.ndarray]]) -> None:
        labels = np.full(shape, BACKGROUND, np.int32)
        for index, pixels in layers:
            labels[pixels.astype(bool)] = index
        self.masks[name] = labels


def stem(path: str) -> str:
    return path.removesuffix(Path(path).suffix)


def without_small(mask: np.ndarray) -> np.ndarray:
    """A mask without the parts that polygons leave out."""
    import cv2

    kept = mask.copy()
    for index in set(np.unique(mask).tolist()) - {BACKGROUND, IGNORED}:
        _, parts = cv2.connectedComponents((mask == index).astype(np.uint8), connectivity=8)
        sizes = np.bincount(parts.ravel())
        kept[(mask == index) & (sizes < SMALLEST)[parts]] = BACKGROUND
    return kept


def ious(truth: np.ndarray, found: np.ndarray) -> list[float]:
    """IoU of each class that is in either mask."""
    values = []
    for index in (set(np.unique(truth)) | set(np.unique(found))) - {BACKGROUND, IGNORED}:
        one, other = truth == index, found == index
        values.append((one & other).sum() / (one | other).sum())
    return values


def compare(truth: Truth, found: Found, *, exact: bool = True, ignored: bool = False, some: bool = False) -> str:
    """ "exact", or the mean IoU over images and classes.

    Args:
        exact: every pixel must agree.
        ignored: the format holds ignored pixels; otherwise they are background there.
        some: the reader sees some of the images only.
    """
    if not some:
        assert found.masks.keys() == truth.masks.keys(), sorted(found.masks.keys() ^ truth.masks.keys())
    assert found.masks
    values, kept = [], []
    for name, labels in found.masks.items():
        wanted = truth.masks[name].copy()
        if not ignored:
            wanted[wanted == IGNORED] = BACKGROUND
        assert labels.shape == wanted.shape, (name, labels.shape, wanted.shape)
        if exact:
            assert np.array_equal(labels, wanted), (name, int((labels != wanted).sum()))
            continue
        values += ious(wanted, labels)
        kept += ious(without_small(wanted), labels)
    if exact:
        return "exact"
    result = f"mean IoU {np.mean(values):.4f}, of parts from {SMALLEST} pixels {np.mean(kept):.4f}"
    # The runs made of names have masks so small that parts of 3 pixels count; those of scenes and photos have not.
    assert np.mean(values if truth.folder.name in LARGE_RUNS else kept) >= LEAST_IOU, result
    return result


def check_photos(truth: Truth, name: str, folders: list[Path]) -> None:
    """Photos as a trainer reads them, raw: as large as their masks, and with no orientation left to apply."""
    seen = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                seen[stem(path.relative_to(folder).as_posix())] = path
    assert seen.keys() == truth.masks.keys(), (name, seen.keys() ^ truth.masks.keys())
    for one, path in seen.items():
        with Image.open(path) as image:
            assert image.size[::-1] == truth.masks[one].shape, (name, path)
            assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1, (name, path)


def with_pycocotools(truth: Truth, kind: str = "coco", exact: bool = True) -> tuple[str, int, str]:
    from pycocotools.coco import COCO

    found, numbers = Found(), set()
    for path in sorted((truth.export(kind) / "annotations").glob("instances_*.json")):
        with quiet():
            data = COCO(str(path))
        assert [one["name"] for one in data.dataset["categories"]] == truth.classes
        assert [one["id"] for one in data.dataset["categories"]] == list(range(1, len(truth.classes) + 1))
        for image in data.loadImgs(data.getImgIds()):
            name = stem(image["file_name"])
            numbers.add(image["id"])
            annotations = data.loadAnns(data.getAnnIds(image["id"]))
            scores = truth.images[name]["scores"]
            for one in annotations:
                if scores is not None:
                    assert abs(one["score"] - scores[one["category_id"] - 1]) < 1e-6
                if exact:
                    mask = data.annToMask(one)
                    rows, columns = np.nonzero(mask)
                    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                    assert (one["area"], one["bbox"]) == (mask.sum(), box)
            assert image["tags"] == [truth.classes[index] for index in truth.images[name]["tags"]]
            layers = ((one["category_id"] - 1, data.annToMask(one)) for one in annotations)
            found.add(name, (image["height"], image["width"]), layers)
    assert len(numbers) == len(truth.masks)
    check_photos(truth, kind, sorted((truth.export(kind) / "images").iterdir()))
    return version("pycocotools"), len(found.masks), compare(truth, found, exact=exact)


def with_pycocotools_polygons(truth: Truth) -> tuple[str, int, str]:
    return with_pycocotools(truth, "coco-polygons")


def with_pycocotools_parts(truth: Truth) -> tuple[str, int, str]:
    return with_pycocotools(truth, "coco-parts")


def with_supervision_coco(truth: Truth) -> tuple[str, int, str]:
    import supervision as sv

    found = Found()
    for path in sorted((truth.export("coco") / "annotations").glob("instances_*.json")):
        images = truth.export("coco") / "images" / path.stem.removeprefix("instances_")
        data = sv.DetectionDataset.from_coco(str(images), str(path), force_masks=True)
        assert data.classes == truth.classes
        _supervised(data, images, truth, found)
    return version("supervision"), len(found.masks), compare(truth, found)


def with_supervision_yolo(truth: Truth) -> tuple[str, int, str]:
    import supervision as sv

    found, root = Found(), truth.export("yolo")
    for images in sorted((root / "images").iterdir()):
        labels = root / "labels" / images.name
        data = sv.DetectionDataset.from_yolo(str(images), str(labels), str(root / "data.yaml"), force_masks=True)
        assert data.classes == truth.classes
        _supervised(data, images, truth, found)
    return version("supervision"), len(found.masks), compare(truth, found, exact=False, some=True)


def _supervised(data, images: Path, truth: Truth, found: Found) -> None:
    for path, _, detections in data:
        name = stem(Path(path).relative_to(images).as_posix())
        masks = [] if detections.mask is None else [np.asarray(mask) for mask in detections.mask]
        found.add(name, truth.masks[name].shape, zip(map(int, detections.class_id), masks, strict=True))


def with_datumaro(
    truth: Truth, folder: Path, kind: str, *, first: int, ignored: int | None = None, some: bool = False
) -> tuple[str, int, str]:
    """Any of datumaro's importers.

    Args:
        first: label id of class 0. ignored: label id of ignored pixels.
    """
    from datumaro import Dataset
    from datumaro.components.annotation import AnnotationType

    data, found = Dataset.import_from(str(folder), kind), Found()
    for item in data:
        layers, tags = [], set()
        for one in item.annotations:
            if one.type == AnnotationType.mask and one.label is not None:
                if one.label >= first or one.label == ignored:
                    layers.append((IGNORED if one.label == ignored else one.label - first, np.asarray(one.image)))
            elif one.type == AnnotationType.label:
                tags.add(one.label - first)
        found.add(item.id, truth.masks[item.id].shape, layers)
        if kind in ("datumaro", "cvat"):
            assert tags == set(truth.images[item.id]["tags"]), (item.id, tags)
    return version("datumaro"), len(found.masks), compare(truth, found, ignored=ignored is not None, some=some)


def datumaro_voc(truth: Truth) -> tuple[str, int, str]:
    check_photos(truth, "voc", [truth.export("voc") / "JPEGImages"])
    first = int(truth.has_background)
    return with_datumaro(
        truth, truth.export("voc"), "voc_segmentation", first=first, ignored=first + len(truth.classes)
    )


def datumaro_voc_tags(truth: Truth) -> tuple[str, int, str]:
    from datumaro import Dataset

    data = Dataset.import_from(str(truth.export("voc")), "voc_classification")
    first, images = int(truth.has_background), 0
    for item in data:
        tags = sorted({one.label - first for one in item.annotations if one.attributes.get("present", True)})
        assert tags == truth.images[item.id]["tags"], (item.id, tags)
        images += 1
    assert images == len(truth.images)
    return version("datumaro"), images, "tags equal"


def datumaro_coco(truth: Truth) -> tuple[str, int, str]:
    return with_datumaro(truth, truth.export("coco"), "coco_instances", first=0)


def datumaro_panoptic(truth: Truth) -> tuple[str, int, str]:
    check_photos(truth, "coco-panoptic", sorted((truth.export("coco-panoptic") / "images").iterdir()))
    for path in sorted((truth.export("coco-panoptic") / "annotations").glob("*.json")):
        for one in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
            ids = [segment["id"] for segment in one["segments_info"]]
            assert len(ids) == len({*ids, 0}) - 1
    return with_datumaro(truth, truth.export("coco-panoptic"), "coco_panoptic", first=0)


def datumaro_cvat(truth: Truth) -> tuple[str, int, str]:
    check_photos(truth, "cvat", [truth.export("cvat") / "images"])
    return with_datumaro(truth, truth.export("cvat"), "cvat", first=0)


def datumaro_cvat_masks(truth: Truth) -> tuple[str, int, str]:
    return with_datumaro(truth, truth.export("cvat") / "segmentation-mask-1.1", "voc_segmentation", first=1)


def datumaro_cvat_ignored(truth: Truth) -> tuple[str, int, str]:
    folder = truth.export("cvat-ignored") / "segmentation-mask-1.1"
    return with_datumaro(truth, folder, "voc_segmentation", first=1, ignored=len(truth.classes) + 1)


def datumaro_own(truth: Truth) -> tuple[str, int, str]:
    check_photos(truth, "datumaro", sorted((truth.export("datumaro") / "images").iterdir()))
    return with_datumaro(truth, truth.export("datumaro"), "datumaro", first=0)


def pillow_voc(truth: Truth) -> tuple[str, int, str]:
    return pillow_labels(
        truth, truth.export("voc") / "SegmentationClass", shift=int(truth.has_background), ignored=True
    )


def opencv_fiftyone(truth: Truth) -> tuple[str, int, str]:
    check_photos(truth, "fiftyone", [truth.export("fiftyone") / "data"])
    targets = json.loads((truth.export("fiftyone") / "mask_targets.json").read_text(encoding="utf-8"))
    assert list(targets.items()) == [(str(index + 1), name) for index, name in enumerate(truth.classes)]
    import cv2  # what FiftyOne reads masks with

    found, root = Found(), truth.export("fiftyone") / "labels"
    for path in root.rglob("*.png"):
        values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        found.masks[stem(path.relative_to(root).as_posix())] = values.astype(np.int32) - 1
    return cv2.__version__, len(found.masks), compare(truth, found)


def pillow_cvat_colours(truth: Truth) -> tuple[str, int, str]:
    """Colours by the label map; datumaro's own reader of them ends at 255 labels."""
    root, found = truth.export("cvat-ignored") / "segmentation-mask-1.1", Found()
    lines = (root / "labelmap.txt").read_text(encoding="utf-8").splitlines()[1:]
    colours = [tuple(map(int, line.split(":")[1].split(","))) for line in lines]
    assert len(set(colours)) == len(colours) == len(truth.classes) + 2
    assert colours[0] == (0, 0, 0)
    names = [line.split(":")[0] for line in lines]
    assert (names[0], names[-1]) == ("background", "ignored")
    table = {colour: index - 1 for index, colour in enumerate(colours)} | {colours[-1]: IGNORED}
    for path in (root / "SegmentationClass").rglob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            values = np.asarray(image)
        labels = np.array([[table[tuple(pixel)] for pixel in row] for row in values.tolist()], np.int32)
        found.masks[stem(path.relative_to(root / "SegmentationClass").as_posix())] = labels
    return version("pillow"), len(found.masks), compare(truth, found, ignored=True)


def pillow_labels(truth: Truth, folder: Path, *, shift: int, ignored: bool) -> tuple[str, int, str]:
    found = Found()
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            values = np.asarray(image).astype(np.int32)
            assert image.mode == ("P" if not truth.wide else "I;16"), image.mode
        labels = values - shift
        if ignored:
            labels[values == (65535 if truth.wide else 255)] = IGNORED
        found.masks[stem(path.relative_to(folder).as_posix())] = labels
    return version("pillow"), len(found.masks), compare(truth, found, ignored=ignored)


def label_studio_brushes(truth: Truth) -> tuple[str, int, str]:
    from urllib.parse import unquote
    from xml.etree import ElementTree

    from label_studio_converter.brush import decode_rle

    root = truth.export("label-studio")
    check_photos(truth, "label-studio", [root / "images"])
    config = ElementTree.parse(root / "labeling_config.xml").getroot()
    names = {tag.get("name"): [one.get("value") for one in tag] for tag in config}
    assert list(names.values()) == [[], truth.classes, truth.classes]
    found = Found()
    for task in json.loads((root / "tasks.json").read_text(encoding="utf-8")):
        place = unquote(task["data"]["image"].removeprefix("/data/local-files/?d="))
        assert (root / place).is_file(), place
        name, layers = stem(place.removeprefix("images/")), []
        (prediction,) = task["predictions"]
        tags = []
        for result in prediction["result"]:
            assert result["from_name"] in names
            assert result["to_name"] == "image"
            if result["type"] == "choices":
                tags = result["value"]["choices"]
                continue
            height, width = result["original_height"], result["original_width"]
            with quiet():
                values = decode_rle(result["value"]["rle"]).reshape(height, width, 4)
            assert set(np.unique(values)) <= {0, 255}
            assert (values == values[..., :1]).all()
            layers.append((truth.classes.index(result["value"]["brushlabels"][0]), values[..., 3] > 0))
        assert tags == [truth.classes[index] for index in truth.images[name]["tags"]]
        scores = truth.images[name]["scores"]
        if scores is not None and tags:
            assert abs(prediction["score"] - min(scores[index] for index in truth.images[name]["tags"])) < 1e-6
        found.add(name, truth.masks[name].shape, layers)
    return version("label-studio-converter"), len(found.masks), compare(truth, found)


def hugging_face(truth: Truth) -> tuple[str, int, str]:
    from datasets import load_dataset

    data, found = load_dataset(str(truth.export("hf")), cache_dir=str(truth.folder / "cache")), Found()
    by_id = {one["id"]: (name, one) for name, one in truth.images.items()}
    for rows in data.values():
        assert rows.features["tags"].feature.names == truth.classes
        for row in rows:
            name, wanted = by_id[row["id"]]
            values = np.asarray(row["mask"]).astype(np.int32)
            labels = values - truth.has_background
            labels[values == (65535 if truth.wide else 255)] = IGNORED
            found.masks[name] = labels
            assert row["tags"] == wanted["tags"]
            if wanted["scores"] is not None:
                assert np.allclose(row["scores"], wanted["scores"], atol=1e-7)
            assert row["image"].size[::-1] == labels.shape
    return version("datasets"), len(found.masks), compare(truth, found, ignored=True)


def pandas_csv(truth: Truth) -> tuple[str, int, str]:
    import pandas

    table = pandas.read_csv(truth.export("csv") / "images.csv")
    for cell in [*table.columns, *table["id"], *table["file"]]:
        assert str(cell)[0] not in "=+-@", cell
    table["id"] = [text[1:] if text[:2] in ("'=", "'+", "'-", "'@") else text for text in table["id"]]
    table["tags"] = [json.loads(text) for text in table["tags"]]
    return version("pandas"), *check_table(truth, table)


def pandas_parquet(truth: Truth) -> tuple[str, int, str]:
    import pandas

    table = pandas.read_parquet(truth.export("parquet") / "images.parquet")
    table["tags"] = [list(tags) for tags in table["tags"]]
    return version("pandas"), *check_table(truth, table)


def check_table(truth: Truth, table) -> tuple[int, str]:
    by_id = {one["id"]: (name, one) for name, one in truth.images.items()}
    assert sorted(table["id"]) == sorted(by_id)
    for _, row in table.iterrows():
        name, wanted = by_id[row["id"]]
        mask = truth.masks[name]
        assert row["tags"] == [truth.classes[index] for index in wanted["tags"]]
        assert (row["height"], row["width"]) == mask.shape
        for index, label in enumerate(truth.classes):
            if wanted["scores"] is not None:
                assert abs(row[f"score {label}"] - wanted["scores"][index]) < 1e-7
            assert abs(row[f"coverage {label}"] - (mask == index).mean()) < 1e-6
        assert abs(row["coverage (ignored)"] - (mask == IGNORED).mean()) < 1e-6
    return len(table), "tags, scores, coverage equal"


def with_ultralytics(truth: Truth) -> tuple[str, int, str]:
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(truth.folder / "ultralytics"))
    import ultralytics
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset, polygons2masks

    found, root = Found(), truth.export("yolo")
    data = check_det_dataset(str(root / "data.yaml"), autodownload=False)
    assert list(data["names"].values()) == truth.classes
    for images in sorted((root / "images").iterdir()):
        rows = YOLODataset(img_path=str(images), data=data, task="segment", augment=False, cache=False, prefix="")
        for label in rows.labels:
            name = stem(Path(label["im_file"]).relative_to(images).as_posix())
            height, width = label["shape"]
            layers = []
            for index, segment in zip(label["cls"].ravel().astype(int), label["segments"], strict=True):
                corners = (segment * [width, height]).reshape(1, -1)
                layers.append((int(index), polygons2masks((height, width), corners, color=1)[0]))
            found.add(name, (height, width), layers)
    check_photos(truth, "yolo", sorted((root / "images").iterdir()))
    return ultralytics.__version__, len(found.masks), compare(truth, found, exact=False)


Reader = Callable[[Truth], tuple[str, int, str]]
# format, library, reader, whether it takes 300 classes and names in folders
READERS: tuple[tuple[str, str, Reader, str], ...] = (
    ("voc", "datumaro (voc_segmentation)", datumaro_voc, "narrow"),
    ("voc", "datumaro (voc_classification)", datumaro_voc_tags, ""),
    ("voc", "Pillow (palette or 16-bit values)", pillow_voc, ""),
    ("coco", "pycocotools", with_pycocotools, ""),
    ("coco, a part each", "pycocotools", with_pycocotools_parts, ""),
    ("coco --polygons", "pycocotools", with_pycocotools_polygons, ""),
    ("coco", "supervision", with_supervision_coco, ""),
    ("coco", "datumaro (coco_instances)", datumaro_coco, ""),
    ("coco-panoptic", "datumaro (coco_panoptic)", datumaro_panoptic, ""),
    ("yolo", "supervision", with_supervision_yolo, "flat"),
    ("label-studio", "label-studio-converter (brush)", label_studio_brushes, ""),
    ("cvat, CVAT for images 1.1", "datumaro (cvat)", datumaro_cvat, ""),
    ("cvat, Segmentation mask 1.1", "datumaro (voc_segmentation)", datumaro_cvat_masks, "narrow"),
    ("cvat, ignored as a label", "datumaro (voc_segmentation)", datumaro_cvat_ignored, "narrow"),
    ("cvat, Segmentation mask 1.1", "Pillow (colours)", pillow_cvat_colours, ""),
    ("datumaro", "datumaro", datumaro_own, ""),
    ("fiftyone", "OpenCV, as FiftyOne does (itself not tried)", opencv_fiftyone, ""),
    ("hf", "datasets", hugging_face, ""),
    ("csv", "pandas", pandas_csv, ""),
    ("parquet", "pandas", pandas_parquet, ""),
)
ULTRALYTICS = (("yolo", "ultralytics", with_ultralytics, ""),)
FLAT_RUNS, LARGE_RUNS = ("plain", "scenes", "voc"), ("scenes", "voc")


def version(name: str) -> str:
    return importlib.metadata.version(name)


class quiet:
    """Libraries that print keep still."""

    def __enter__(self) -> None:
        self.out, sys.stdout = sys.stdout, io.StringIO()

    def __exit__(self, *_: object) -> None:
        sys.stdout = self.out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--ultralytics", action="store_true", help="read YOLO with ultralytics, where it is installed")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows, failures = [], 0
    for folder in sorted(path.parent for path in args.out.glob("*/truth")):
        truth = Truth.read(folder)
        for kind, library, reader, needs in ULTRALYTICS if args.ultralytics else READERS:
            if ("narrow" in needs and truth.wide) or ("flat" in needs and folder.name not in FLAT_RUNS):
                continue
            try:
                found, images, result = reader(truth)
            except Exception as error:
                failures += 1
                found, images, result = "", 0, f"FAILED {type(error).__name__}: {error}"
            rows.append((folder.name, kind, f"{library} {found}".strip(), str(images), result))
            print(" | ".join(rows[-1]), flush=True)
    if args.table:
        lines = ["| run | format | read by | images | result |", "|---|---|---|---|---|"]
        args.table.write_text("\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n")
    sys.exit(f"{failures} of {len(rows)} readings failed" if failures or not rows else 0)


if __name__ == "__main__":
    main()

"""Plain readers of each format: what a mask of class indices is there, by name. -1 background, -2 ignored."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from tests.wsss.export.test_mask_regions import decode_brush

BACKGROUND, IGNORED = -1, -2


def stem(path: str) -> str:
    """Without the last suffix."""
    return path.removesuffix(Path(path).suffix)


def png(path: Path) -> np.ndarray:
    """Values of a palette or grey PNG, int32."""
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int32)


def names_in(folder: Path, suffix: str) -> dict[str, Path]:
    """Files by name without suffix."""
    return {stem(path.relative_to(folder).as_posix()): path for path in folder.rglob(f"*{suffix}")}


def shifted(values: np.ndarray, shift: int, ignored: int | None) -> np.ndarray:
    """Stored values as class indices."""
    labels = values - shift
    labels[labels < 0] = BACKGROUND
    if ignored is not None:
        labels[values == ignored] = IGNORED
    return labels


def read_voc(root: Path, shift: int, ignored: int) -> dict[str, np.ndarray]:
    masks = names_in(root / "SegmentationClass", ".png")
    listed = [line for path in (root / "ImageSets" / "Segmentation").glob("*.txt")
              for line in path.read_text(encoding="utf-8").splitlines()]  # fmt: skip
    assert sorted(listed) == sorted(masks)
    return {name: shifted(png(path), shift, ignored) for name, path in masks.items()}


def read_coco(root: Path, *_: int) -> dict[str, np.ndarray]:
    found, ids = {}, []
    for path in (root / "annotations").glob("instances_*.json"):
        data = COCO(str(path))
        for image in data.loadImgs(data.getImgIds()):
            ids.append(image["id"])
            labels = np.full((image["height"], image["width"]), BACKGROUND, np.int32)
            for one in data.loadAnns(data.getAnnIds(image["id"])):
                pixels = data.annToMask(one).astype(bool)
                assert one["area"] == pixels.sum()
                assert isinstance(one["segmentation"], list) or one["segmentation"]["counts"].isascii()
                labels[pixels] = one["category_id"] - 1
            found[stem(image["file_name"])] = labels
    assert len(set(ids)) == len(ids)
    return found


def read_panoptic(root: Path, *_: int) -> dict[str, np.ndarray]:
    found = {}
    for path in (root / "annotations").glob("panoptic_*.json"):
        for one in json.loads(path.read_text(encoding="utf-8"))["annotations"]:
            values = png(path.with_suffix("") / one["file_name"])
            ids = values[..., 0] + 256 * values[..., 1] + 256**2 * values[..., 2]
            labels = np.full(ids.shape, BACKGROUND, np.int32)
            segments = {segment["id"]: segment for segment in one["segments_info"]}
            assert len(segments) == len(one["segments_info"])
            assert set(np.unique(ids).tolist()) - {0} == set(segments)
            for number, segment in segments.items():
                assert segment["area"] == (ids == number).sum()
                labels[ids == number] = segment["category_id"] - 1
            found[stem(one["file_name"])] = labels
    return found


def read_yolo(root: Path, *_: int) -> dict[str, np.ndarray]:
    """As ultralytics does: cut to whole pixels, filled by OpenCV."""
    found = {}
    for split in (root / "labels").iterdir():
        for name, path in names_in(split, ".txt").items():
            (photo,) = (one for key, one in names_in(root / "images" / split.name, "").items() if key == name)
            with Image.open(photo) as image:
                width, height = image.size
            labels = np.full((height, width), BACKGROUND, np.int32)
            for line in path.read_text().splitlines():
                index, *numbers = line.split()
                corners = np.array(numbers, np.float64).reshape(-1, 2)
                assert corners.min() >= 0
                assert corners.max() <= 1
                painted = np.zeros((height, width), np.uint8)
                cv2.fillPoly(painted, [(corners * [width, height]).astype(np.int32)], 1)
                labels[painted > 0] = int(index)
            found[name] = labels
    return found


def read_mmseg(root: Path, shift: int, ignored: int) -> dict[str, np.ndarray]:
    """With mmseg itself, by the config of the export."""
    import mmseg.datasets.transforms  # noqa: F401
    from mmengine.config import Config
    from mmseg.registry import DATASETS
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    config, found = Config.fromfile(root / "dataset_config.py"), {}
    for key in [key for key in config if key.endswith("_dataset")]:
        settings = config[key]
        images = Path(settings.data_root, settings.data_prefix.img_path)
        for one in DATASETS.build(settings):
            values = one["data_samples"].gt_sem_seg.data[0].numpy().astype(np.int32)
            assert one["inputs"].shape[1:] == values.shape
            name = stem(Path(one["data_samples"].img_path).relative_to(images).as_posix())
            found[name] = shifted(values, shift, settings.ignore_index)
    return found


def read_label_studio(root: Path, *_: int) -> dict[str, np.ndarray]:
    config = ElementTree.parse(root / "labeling_config.xml").getroot()
    names = [one.get("value") for one in config.find("BrushLabels")]
    found = {}
    for task in json.loads((root / "tasks.json").read_text(encoding="utf-8")):
        place = root / unquote(task["data"]["image"].removeprefix("/data/local-files/?d="))
        with Image.open(place) as image:
            labels = np.full(image.size[::-1], BACKGROUND, np.int32)
        (prediction,) = task["predictions"]
        assert prediction["model_version"]
        for result in prediction["result"]:
            assert config.find(f"*[@name='{result['from_name']}']").get("toName") == result["to_name"]
            if result["type"] == "brushlabels":
                assert (result["original_height"], result["original_width"]) == labels.shape
                values = decode_brush(result["value"]["rle"]).reshape(*labels.shape, 4)
                labels[values[..., 3] > 0] = names.index(result["value"]["brushlabels"][0])
        found[stem(place.relative_to(root / "images").as_posix())] = labels
    return found


def read_cvat(root: Path, *_: int) -> dict[str, np.ndarray]:
    """CVAT for images 1.1, which must say what the colours say."""
    lines = (root / "segmentation-mask-1.1" / "labelmap.txt").read_text(encoding="utf-8").splitlines()[1:]
    colours = [tuple(map(int, line.split(":")[1].split(","))) for line in lines]
    assert colours[0] == (0, 0, 0)
    assert len(set(colours)) == len(colours)
    found = {}
    for path in root.glob("*.xml"):
        tree = ElementTree.parse(path).getroot()
        names = [label.findtext("name") for label in tree.iter("label")]
        assert names == [line.split(":")[0] for line in lines][1 : len(names) + 1]
        for number, image in enumerate(tree.findall("image")):
            assert image.get("id") == str(number)
            labels = np.full((int(image.get("height")), int(image.get("width"))), BACKGROUND, np.int32)
            for mask in image.findall("mask"):
                left, top, width, height = (int(mask.get(key)) for key in ("left", "top", "width", "height"))
                runs = [int(run) for run in mask.get("rle").split(",")]
                values = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width).astype(bool)
                labels[top : top + height, left : left + width][values] = names.index(mask.get("label"))
            name = stem(image.get("name"))
            painted = png(root / "segmentation-mask-1.1" / "SegmentationClass" / f"{name}.png")
            expected = np.array(colours, np.int32)[labels + 1]
            assert np.array_equal(painted, expected)
            found[name] = labels
    return found


def read_datumaro(root: Path, *_: int) -> dict[str, np.ndarray]:
    found = {}
    for path in (root / "annotations").glob("*.json"):
        for item in json.loads(path.read_text(encoding="utf-8"))["items"]:
            labels = np.full(item["image"]["size"], BACKGROUND, np.int32)
            for one in item["annotations"]:
                if one["type"] == "mask":
                    labels[coco_masks.decode(one["rle"]).astype(bool)] = one["label_id"]
            found[item["id"]] = labels
    return found


def read_fiftyone(root: Path, *_: int) -> dict[str, np.ndarray]:
    """With OpenCV, as FiftyOne does: a palette would become colours."""
    assert len(json.loads((root / "classifications.json").read_text(encoding="utf-8"))["images"])
    masks = {
        name: cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        for name, path in names_in(root / "labels", ".png").items()
    }
    return {name: shifted(mask.astype(np.int32), 1, None) for name, mask in masks.items()}


def read_hf(root: Path, shift: int, ignored: int) -> dict[str, np.ndarray]:
    import io

    found = {}
    for path in (root / "data").glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            with (
                Image.open(io.BytesIO(row["image"]["bytes"])) as photo,
                Image.open(io.BytesIO(row["mask"]["bytes"])) as mask,
            ):
                assert photo.size == mask.size
                found[stem(row["mask"]["path"])] = shifted(np.asarray(mask).astype(np.int32), shift, ignored)
    return found


READERS = {
    "voc": read_voc, "coco": read_coco, "coco-panoptic": read_panoptic, "yolo": read_yolo, "mmseg": read_mmseg,
    "label-studio": read_label_studio, "cvat": read_cvat, "datumaro": read_datumaro, "fiftyone": read_fiftyone,
    "hf": read_hf,
}  # fmt: skip
HOLD_IGNORED = {"voc", "mmseg", "hf"}

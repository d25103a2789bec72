"""A folder with tiny drawn data where the pages expect photos and data sets."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tagclip.demo.dataset import write_scenes
from tagclip.demo.scenes import SceneConfig
from tagclip.vocabulary import Vocabulary
from tests.docs.pages import ROOT

SCENES = 2
LOOK = SceneConfig(side=(96, 112), objects=(1, 2), object_side=(50, 80))


def build(root: Path) -> None:
    """photos, new_photos, photo.jpg, classes.txt, labels.txt, lists, scenes, my_idea.py, and data/ in three layouts."""
    voc = root / "data" / "VOCdevkit" / "VOC2012"
    write_scenes(voc, SCENES, LOOK, seed=3, split="val")
    ids = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    photos = [voc / "JPEGImages" / f"{name}.jpg" for name in ids]
    for split in ("train", "trainaug"):
        shutil.copy(voc / "ImageSets" / "Segmentation" / "val.txt", voc / "ImageSets" / "Segmentation" / f"{split}.txt")
    _annotate_voc(voc, ids)
    shutil.copytree(voc, root / "scenes")
    old = root / "data" / "VOCdevkit" / "VOC2007"
    shutil.copytree(voc, old)
    (old / "ImageSets" / "Main").mkdir()
    (old / "ImageSets" / "Main" / "test.txt").write_text("\n".join(ids) + "\n")
    for folder in ("photos", "new_photos", "data/coco/val2014"):
        (root / folder).mkdir(parents=True)
        for photo in photos:
            shutil.copy(photo, root / folder)
    _annotate_coco(root / "data" / "coco" / "annotations", [photo.name for photo in photos])
    shutil.copy(photos[0], root / "photo.jpg")
    (root / "lists").mkdir()
    (root / "lists" / "first.txt").write_text(f"{ids[0]}\n")
    (root / "labels.txt").write_text("".join(f"{name} {number % 2}\n" for number, name in enumerate(ids)))
    for page, language, target in (("own-data", "text", "classes.txt"), ("dense", "python", "my_idea.py")):
        (root / target).write_text(_block(ROOT / "docs" / f"{page}.md", language, target.split(".")[0]))


def _block(page: Path, language: str, word: str) -> str:
    """The page's code block that begins with a comment or docstring naming the file."""
    for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        lines = [line.strip() for line in block.splitlines()]
        if word.replace("_", "-") in lines[0].replace("_", "-"):
            return "\n".join(line if language == "python" else line.strip() for line in block.splitlines()) + "\n"
    raise AssertionError(f"{page}: no {language} block for {word}")


def _annotate_voc(voc: Path, ids: list[str]) -> None:
    (voc / "Annotations").mkdir()
    names = Vocabulary.named("voc").names
    lines = (voc / "val_labels.txt").read_text().splitlines()
    for name, line in zip(ids, lines, strict=True):
        objects = "".join(f"<object><name>{names[int(label)]}</name></object>" for label in line.split()[1:])
        (voc / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")


def _annotate_coco(folder: Path, files: list[str]) -> None:
    folder.mkdir(parents=True)
    images = [{"id": number, "file_name": name, "width": 100, "height": 100} for number, name in enumerate(files)]
    found = [{"image_id": number, "category_id": 17 + number % 2, "id": number} for number in range(len(files))]
    categories = [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
    content = {"images": images, "annotations": found, "categories": categories}
    (folder / "instances_val2014.json").write_text(json.dumps(content))

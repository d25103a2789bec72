"""Ground-truth labels in three formats."""

import json

import pytest

from tagclip.errors import UsageError
from tagclip.labels import read_labels
from tagclip.vocabulary import Vocabulary

PETS = Vocabulary(["cat", "dog", "bird"], name="pets")
XML = "<annotation><filename>x.jpg</filename>{}</annotation>"
THING = "<object><name>{}</name><difficult>{}</difficult><part><name>head</name></part></object>"
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "sub/b.jpg"}],
    "categories": [{"id": 90, "name": "bird"}, {"id": 1, "name": "cat"}],
    "annotations": [{"image_id": 7, "category_id": 90}, {"image_id": 7, "category_id": 1}],
}


def test_plain(tmp_path):
    (tmp_path / "labels.txt").write_text("a 2 0\nb\n")
    assert read_labels(tmp_path / "labels.txt", PETS) == {"a": (0, 2), "b": ()}


def test_voc_folder(tmp_path):
    things = THING.format("dog", 0) + THING.format("cat", 1) + THING.format("dog", 0)
    (tmp_path / "a.xml").write_text(XML.format(things))
    (tmp_path / "b.xml").write_text(XML.format(""))
    assert read_labels(tmp_path, PETS) == {"a": (0, 1), "b": ()}
    assert read_labels(tmp_path, PETS, difficult=False) == {"a": (1,), "b": ()}


def test_coco(tmp_path):
    (tmp_path / "instances.json").write_text(json.dumps(COCO))
    assert read_labels(tmp_path / "instances.json", PETS) == {"a": (0, 2), "sub/b": ()}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.xml", "<annotation>", "not a readable XML file"),
        ("x.xml", XML.format(THING.format("cow", 0)), "object 'cow' is not a class"),
        ("x.md", "nothing", r"no \.xml file"),
        ("x.json", "{", "not a COCO annotation file"),
        ("x.json", "[]", "not a COCO annotation file"),
        ("x.json", '{"images": []}', "not a COCO annotation file"),
        ("x.json", json.dumps({**COCO, "categories": [{"id": 1, "name": "cat"}]}), "an annotation names"),
        ("x.json", json.dumps(COCO).replace("bird", "cow"), "category 'cow' is not a class"),
        ("x.json", json.dumps(COCO).replace('"image_id": 7', '"image_id": 9'), "names image 9"),
        ("x.txt", "", "no label in it"),
        ("x.txt", "a 9", "class 9 is no index"),
    ],
)
def test_bad_labels(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    folder = name.endswith((".xml", ".md"))
    with pytest.raises(UsageError, match=message):
        read_labels(tmp_path if folder else tmp_path / name, PETS)


def test_missing_label_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_labels(tmp_path / "instances.json", PETS)

"""Ground-truth labels in three formats."""

import json

import pytest

from tagclip.errors import UsageError
from tagclip.labels import find_labels, read_labels
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
    ("content", "encoding"),
    [
        ('<?xml version="1.0" encoding="GB2312"?>\n', "gb2312"),
        ('<?xml version="1.0" encoding="Shift_JIS" ?>', "shift_jis"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?>", "latin-1"),
        ('<?xml version="1.0" encoding="utf-8"?>', "utf-8"),
        ('<?xml version="1.0" encoding="utf-8"?>', "utf-8-sig"),
        ('<?xml version="1.0" encoding="utf-16"?>', "utf-16"),
        ('<?xml version="1.0" encoding="utf-16"?>', "utf-8"),  # as programs that write a string leave it
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
    ],
)
def test_xml_in_any_declared_encoding(tmp_path, content, encoding):
    name = "écureuil" if encoding == "latin-1" else "中犬" if encoding != "shift_jis" else "犬"
    (tmp_path / "a.xml").write_bytes((content + XML.format(THING.format(name, 0))).encode(encoding))
    assert read_labels(tmp_path, Vocabulary(["cat", name])) == {"a": (1,)}


def test_stray_files_beside_the_xml(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.b.XML").write_text(XML.format(THING.format("dog", 0)))
    for name in ("._a.xml", ".DS_Store", "Thumbs.db", "classes.txt"):
        (tmp_path / name).write_bytes(b"\0\xff")
    (tmp_path / "folder.xml").mkdir()
    assert read_labels(tmp_path, PETS) == {"s/a.b": (1,)}


def test_names_of_classes_are_compared_without_case_accents_and_underscores(tmp_path):
    (tmp_path / "a.xml").write_text(XML.format(THING.format("Traffic_Light", 0)), encoding="utf-8")
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 5, "name": "E\u0301cureuil"}],
        "annotations": [{"image_id": 1, "category_id": 5}],
    }
    (tmp_path / "x.json").write_text(json.dumps(coco))
    vocabulary = Vocabulary(["traffic light", "écureuil"])
    assert read_labels(tmp_path, vocabulary) == {"a": (0,)}
    assert read_labels(tmp_path / "x.json", vocabulary) == {"a": (1,)}


def test_images_that_differ_only_in_suffix_keep_their_own_labels(tmp_path):
    names = ["a.jpg", "a.png", ".\\s\\b.JPG"]
    coco = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [{"image_id": 0, "category_id": 0}, {"image_id": 1, "category_id": 1}],
    }
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(coco).encode())
    labels = read_labels(tmp_path / "x.json", PETS)
    assert labels == {"a.jpg": (0,), "a.png": (1,), "s/b": ()}
    assert find_labels(labels, "a", "photos/a.png") == (1,)
    assert find_labels(labels, "a.jpg", "photos/a.jpg") == (0,)
    assert find_labels(labels, "s/b") == ()
    assert find_labels(labels, "a") is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.xml", "<annotation>", "not a readable XML file"),
        ("x.xml", XML.format(THING.format("cow", 0)), "object 'cow' is not a class"),
        ("x.md", "nothing", r"no \.xml file in it \(1 \.md\)"),
        ("x.json", "{", "not a COCO annotation file"),
        ("x.json", "[]", "not a COCO annotation file"),
        ("x.json", '{"images": []}', "not a COCO annotation file"),
        ("x.json", json.dumps({**COCO, "categories": [{"id": 1, "name": "cat"}]}), "an annotation names"),
        ("x.json", json.dumps(COCO).replace("bird", "cow"), "category 'cow' is not a class"),
        ("x.json", json.dumps(COCO).replace('"image_id": 7', '"image_id": 9'), "names image 9"),
        ("x.json", json.dumps(COCO).replace("sub/b", "a"), "images 7 and 8 both have the file 'a.jpg'"),
        ("x.json", json.dumps(COCO).replace("sub/b", "../b"), r"id '../b.jpg' is not a path inside"),
        ("x.json", json.dumps(COCO).replace('"image_id": 7', '"image_id": [7]'), "not a COCO annotation file"),
        ("x.json", json.dumps(COCO).replace('"bird"', "null"), "not a COCO annotation file"),
        ("x.xml", '<?xml version="1.0" encoding="klingon"?><a/>', "unknown encoding: klingon"),
        ("x.xml", '<?xml version="1.0" encoding="ascii"?><a>é</a>', "not a readable XML file"),
        ("x.txt", "../b 1\n", r"line 1: id '../b' is not a path inside"),
        ("x.txt", "", "no label in it"),
        ("x.txt", "a 9", "class 9 is no index"),
    ],
)
def test_bad_labels(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    folder = name.endswith((".xml", ".md"))
    with pytest.raises(UsageError, match=message):
        read_labels(tmp_path if folder else tmp_path / name, PETS)


def test_missing_label_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_labels(tmp_path / "instances.json", PETS)

"""Tags from files: bad ones are refused with the line, odd ones are matched to images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import UsageError
from tagclip.image_lists import ImageFile, find_images
from tagclip.tag_files import TagRecord
from tests.wsss.runs import VOCABULARY
from wsss.pipeline.given_tags import match_tags, read_given_tags, tags_digest

VOC_XML = "<annotation><object><name>dog</name></object><object><name>cat</name></object></annotation>"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tags.jsonl", '{"id": "a", "tags": ["horse"]}\n', "line 1: tag 'horse' is not a class"),
        ("tags.txt", "a 0\nb 7\n", "class 7 is no index"),
        ("tags.txt", "a cat\n", "line 1: 'cat' is not a class number"),
        ("tags.txt", "a 0\na 1\n", "image 'a' appears twice"),
        ("tags.jsonl", '{"id": "a", "tags": []}\n{"id": "a", "tags": []}\n', "image 'a' appears twice"),
        ("tags.txt", "", "no tags in it"),
        ("tags.jsonl", "", "no tags in it"),
        ("tags.jsonl", '{"id": "a"\n', "line 1: not valid JSON"),
        ("tags.jsonl", '{"id": "a", "tags": ["cat"], "scores": [1, 2]}\n', "2 scores, but vocabulary"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_given_tags(tmp_path / name, VOCABULARY)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.jsonl"):
        read_given_tags(tmp_path / "nothing.jsonl", VOCABULARY)


def test_every_format_gives_the_same_tags(tmp_path):
    (tmp_path / "tags.jsonl").write_text('{"id": "a", "tags": ["dog", "cat"]}\n{"id": "b", "tags": []}\n')
    (tmp_path / "tags.txt").write_text("b\na 1 0\n")
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "a.xml").write_text(VOC_XML)
    (tmp_path / "xml" / "b.xml").write_text("<annotation/>")
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 5, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 7}, {"image_id": 1, "category_id": 5}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    read = [read_given_tags(tmp_path / name, VOCABULARY) for name in ("tags.jsonl", "tags.txt", "xml", "coco.json")]
    expected = {"a": TagRecord("a", (0, 1)), "b": TagRecord("b", ())}
    assert all(tags == expected for tags in read)
    assert len({tags_digest(tags) for tags in read}) == 1
    assert tags_digest({**expected, "b": TagRecord("b", (0,))}) != tags_digest(expected)
    scored = [{**expected, "b": TagRecord("b", (), scores=np.float32([0.1, value, 0.3]))} for value in (0.2, 0.25)]
    assert len({tags_digest(tags) for tags in (expected, *scored)}) == 3


def files(*names):
    return [ImageFile(name, Path(f"{name}.jpg")) for name in names]


def test_ids_without_an_image_are_told_and_strangers_refused():
    tags = {"b": TagRecord("b", (0,)), "gone": TagRecord("gone", (1,))}
    matched = match_tags(files("a", "b"), tags, Path("tags.txt"))
    assert (matched.tags, matched.ids, matched.absent) == ({"b": tags["b"]}, {"b"}, ["gone"])
    with pytest.raises(UsageError, match=r"none of its 2 ids .*'b'.* is among the 1 images .*'x'"):
        match_tags(files("x"), tags, Path("tags.txt"))


def test_the_plan_covers_all_images_unless_most_have_no_tags():
    tags = {name: TagRecord(name, ()) for name in "ab"}
    assert [file.id for file in match_tags(files(*"abcd"), tags, Path("t")).files] == ["a", "b", "c", "d"]
    assert [file.id for file in match_tags(files(*"abcde"), tags, Path("t")).files] == ["a", "b"]


def test_labelled_images_that_differ_only_in_suffix_keep_their_own_tags(tmp_path):
    coco = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(("a.jpg", "a.png", "b.jpg"))],
        "categories": [{"id": 5, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [{"image_id": 0, "category_id": 7}, {"image_id": 1, "category_id": 5}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    tags = read_given_tags(tmp_path / "coco.json", VOCABULARY)
    for present, expected in (
        (["a.jpg"], {"a": (1,)}),
        (["a.png"], {"a": (0,)}),
        (["a.jpg", "a.png", "b.jpg"], {"a.jpg": (1,), "a.png": (0,), "b": ()}),
    ):
        folder = tmp_path / "-".join(present)
        folder.mkdir()
        for name in present:
            Image.new("RGB", (4, 4)).save(folder / name)
        matched = match_tags(find_images(folder), tags, tmp_path / "coco.json")
        assert {name: record.indices for name, record in matched.tags.items()} == expected
        assert len(matched.absent) == 3 - len(present)

"""Corrections on disk, and what they make of an image's tags."""

import json

import numpy as np
import pytest

from tagclip.errors import UsageError
from tagclip.tag_files import TagCorrection, TagRecord
from wsss.files.corrections import (
    Corrections,
    ImageCorrection,
    corrected_tags,
    corrections_schema,
    read_corrections,
    write_corrections,
)

CLASSES = ("cat", "dog", "bird")
SAID = Corrections(
    "abc", "0" * 64, "Ann Ünal", "2026-01-02T03:04:05Z", {"cat": 0.25, "bird": 1},
    {"a/1": ImageCorrection(("dog",), ("cat",), "checked", "<b>2</b> dogs"), "ü 2": ImageCorrection(state="rejected")},
)  # fmt: skip


def written(tmp_path, **changes):
    path = tmp_path / "corrections.json"
    content = {"format": 1, "run": {"id": "abc"}, "thresholds": {}, "images": {}, **changes}
    path.write_text(json.dumps(content))
    return path


def test_what_is_written_reads_back_the_same(tmp_path):
    write_corrections(SAID, tmp_path / "c.json")
    assert read_corrections(tmp_path / "c.json") == SAID
    assert read_corrections(written(tmp_path)) == Corrections("abc")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"\['format'\]: 1 was expected"),
        ({"run": {}}, r"\['run'\]: 'id' is a required property"),
        ({"run": {"id": "a", "manifest_sha256": "../x"}}, "manifest_sha256"),
        ({"thresholds": {"cat": "high"}}, r"\['thresholds'\]\['cat'\]: 'high' is not of type 'number'"),
        ({"thresholds": {"cat": True}}, "is not of type 'number'"),
        ({"thresholds": {"cat": 10**400}}, "is greater than the maximum"),
        ({"thresholds": []}, r"\['thresholds'\]: \[\] is not of type 'object'"),
        ({"images": {"../../etc/passwd": {}}}, r"etc/passwd"),
        ({"images": {"/a": {}}}, "'/a'"),
        ({"images": {"a": {"state": "gone"}}}, r"\['images'\]\['a'\]\['state'\]: 'gone' is not one of"),
        ({"images": {"a": {"add": ["cat"], "remove": ["cat"]}}}, "image 'a': 'cat' is both added and removed"),
        ({"images": {"a": {"add": "cat"}}}, "is not of type 'array'"),
        ({"images": {"a": {"note": "x" * 10001}}}, "is too long"),
        ({"images": {"a": {"extra": 1}}}, "Additional properties are not allowed"),
        ({"images": {f"{n}" * 300: 3 for n in range(9)}}, "is not of type 'object'"),
    ],
)
def test_hostile_files_give_one_line(tmp_path, changes, message):
    path = written(tmp_path, **changes)
    with pytest.raises(UsageError, match=message) as caught:
        read_corrections(path)
    assert str(caught.value).startswith(f"corrections {path}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", "[" * 99999, '{"format": NaN}', '{"format": 1, "format": 1}', "\0", '{"a": 1' + "0" * 9999],
)
def test_what_is_no_json_gives_one_line(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"c\.json") as caught:
        read_corrections(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.json: No such file"):
        read_corrections(tmp_path / "none.json")


def test_the_schema_says_what_every_key_is():
    schema = corrections_schema()
    assert set(schema["properties"]) == {"format", "run", "by", "saved", "thresholds", "images"}
    assert all("description" in value for value in schema["properties"].values())


def record(tags=(0,), scores=(0.2, 0.5, 0.5), **fields):
    return TagRecord("a", tags, scores=None if scores is None else np.array(scores, np.float32), **fields)


def test_moved_thresholds_decide_only_their_classes():
    said = Corrections("r", thresholds={"cat": 0.3, "bird": 0.5})
    assert corrected_tags(record((0,)), said, CLASSES) == ("bird",)
    assert corrected_tags(record((0, 1)), said, CLASSES) == ("dog", "bird")
    assert corrected_tags(record((0,)), Corrections("r"), CLASSES) == ("cat",)
    assert corrected_tags(record(()), Corrections("r", thresholds={"dog": 0.6}), CLASSES) == ()
    # 0.2 as float32 is 0.200000003, and the threshold is rounded as the score was.
    assert corrected_tags(record(()), Corrections("r", thresholds={"cat": 0.2}), CLASSES) == ("cat",)


def test_scores_that_are_not_known_change_nothing():
    said = Corrections("r", thresholds={"cat": 0.1, "dog": 0.9})
    assert corrected_tags(record((1,), None), said, CLASSES) == ("dog",)
    assert corrected_tags(record((1,), (float("nan"), float("nan"), 1)), said, CLASSES) == ("dog",)


def test_what_is_said_of_the_image_wins():
    said = Corrections("r", thresholds={"cat": 0.1, "dog": 0.9}, images={"a": ImageCorrection(("dog",), ("cat",))})
    assert corrected_tags(record((2,)), said, CLASSES) == ("dog", "bird")
    rejected = Corrections("r", images={"a": ImageCorrection(state="rejected")})
    assert corrected_tags(record((2,)), rejected, CLASSES) == ("bird",)


def test_what_was_said_before_is_kept_until_it_is_said_otherwise():
    before = record((1, 2), correction=TagCorrection((0, 2), {1: "ann"}, {0: "ann"}))
    moved = Corrections("r", thresholds={"cat": 0.1, "dog": 0.9, "bird": 0.9})
    assert corrected_tags(before, moved, CLASSES) == ("dog",)
    again = Corrections("r", images={"a": ImageCorrection(("cat",), ("dog",))})
    assert corrected_tags(before, again, CLASSES) == ("cat", "bird")


@pytest.mark.parametrize(
    "said",
    [
        Corrections("r", thresholds={"cow": 0.5}),
        Corrections("r", images={"a": ImageCorrection(add=("cow",))}),
        Corrections("r", images={"a": ImageCorrection(remove=("cow",))}),
    ],
)
def test_a_class_that_the_run_does_not_have_is_named(said):
    with pytest.raises(UsageError, match="'cow' is not a class of the run"):
        corrected_tags(record(), said, CLASSES)
    with pytest.raises(UsageError, match=r"c\.json: .*'cow' is not a class of the run"):
        said.check_classes(CLASSES, "c.json")

"""Tags on disk: what is written reads back the same, and bad lines are named."""

import io
import json

import numpy as np
import pytest

from tagclip.errors import UsageError
from tagclip.tag_files import (
    KeptScores,
    TagCorrection,
    TagRecord,
    map_ids,
    parse_tag_line,
    read_plain,
    read_tags,
    tag_line,
    to_arrays,
    write_plain,
)
from tagclip.vocabulary import Vocabulary

PETS = Vocabulary(["cat", "dog", "bird"], name="pets")
STUFF = Vocabulary.named("cocostuff")


def record(scores):
    return TagRecord("i", (0,), "i.jpg", (4, 5), None if scores is None else np.array(scores, np.float32))


def test_scores_read_back_to_the_bit(tmp_path):
    scores = np.random.default_rng(0).random((40, 3), dtype=np.float32) ** 9
    rows = [TagRecord(f"i{n}", (0, 2), f"x/i{n}.jpg", (4, 5), row) for n, row in enumerate(scores)]
    lines = [tag_line(row, PETS) for row in rows]
    path = tmp_path / "tags.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = read_tags(path, PETS)
    assert [record.id for record in records] == [f"i{n}" for n in range(40)]
    assert (np.stack([record.scores for record in records]) == scores).all()
    assert records[3].indices == (0, 2)
    assert (records[3].path, records[3].size) == ("x/i3.jpg", (4, 5))
    tags, found = to_arrays(records, 3)
    assert (found == scores).all()
    assert tags.tolist() == [[True, False, True]] * 40
    assert len(read_tags(tmp_path, PETS)) == 40


def test_top_k_keeps_the_best_and_the_tags():
    line = tag_line(record([0.1, 0.7, 0.3]), PETS, kept=KeptScores(1))
    assert line["scores"] == {"dog": 0.7, "cat": 0.1}
    back = parse_tag_line(line, PETS)
    assert np.isnan(back.scores[2])
    assert back.scores[1] == np.float32(0.7)


def test_a_floor_keeps_what_is_above_it_and_the_tags():
    assert tag_line(record([0.1, 0.7, 0.3]), PETS, kept=KeptScores(above=0.3))["scores"] == {"dog": 0.7, "cat": 0.1}
    both = KeptScores(2, above=0.05)
    assert tag_line(record([0.1, 0.7, 0.3]), PETS, kept=both)["scores"] == {"dog": 0.7, "bird": 0.3, "cat": 0.1}
    line = tag_line(record([0.1, 0.7, 0.3]), PETS, kept=KeptScores(above=1.0))
    assert line["scores"] == {"cat": 0.1}
    assert np.isnan(parse_tag_line(line, PETS).scores).tolist() == [False, True, True]
    assert KeptScores().all
    assert not KeptScores(above=0.0).all


def test_scores_that_are_not_known_are_left_out():
    assert "scores" not in tag_line(record(None), PETS)
    nan = float("nan")
    line = tag_line(record([nan, 0.7, 0.3]), PETS)
    assert line == {"id": "i", "path": "i.jpg", "size": [4, 5], "scores": {"dog": 0.7, "bird": 0.3}, "tags": ["cat"]}
    assert tag_line(record([nan, 0.2, 0.3]), PETS, kept=KeptScores(2))["scores"] == {"bird": 0.3, "dog": 0.2}
    assert tag_line(record([nan, 0.2, nan]), PETS, kept=KeptScores(2))["scores"] == {"dog": 0.2}


def test_plain_text_round_trip(tmp_path):
    rows = [("2007_000033", (0, 14)), ("my photo 7", (2,)), ("sub/none", ())]
    stream = io.StringIO()
    write_plain(rows, stream)
    assert stream.getvalue() == "2007_000033 0 14\nmy photo 7\t2\nsub/none\n"
    path = tmp_path / "tags.txt"
    path.write_text("# comment\n\n" + stream.getvalue())
    assert read_plain(path) == rows


def test_map_ids():
    assert map_ids([[181, 13, 0], []], STUFF, "auto", "x") == [(0, 12, 170), ()]
    assert map_ids([[11, 29]], STUFF, "auto", "x") == [(11, 29)]
    assert map_ids([[0, 1, 10]], STUFF, "auto", "x") == [(0, 1, 10)]
    assert map_ids([[13]], STUFF, "raw", "x") == [(12,)]
    assert map_ids([[13]], STUFF, "index", "x") == [(13,)]
    with pytest.raises(UsageError, match="may be class indices or raw ids"):
        map_ids([[13]], STUFF, "auto", "x")
    with pytest.raises(UsageError, match=r"x: class 181 is no index of vocabulary 'cocostuff'.*fit as raw"):
        map_ids([[13, 181]], STUFF, "index", "x")
    with pytest.raises(UsageError, match="class 11 is no raw id"):
        map_ids([[11]], STUFF, "raw", "x")
    with pytest.raises(UsageError, match="class 3 is no index"):
        map_ids([[3]], PETS, "auto", "x")
    with pytest.raises(UsageError, match="no raw ids"):
        map_ids([[1]], PETS, "raw", "x")


GOOD = '{"id": "a", "tags": ["cat"]}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "{oops\n", "line 2: not valid JSON"),
        (GOOD + '["a"]\n', "line 2: not a tag line"),
        (GOOD + '{"id": "b"}\n', "line 2: not a tag line"),
        (GOOD + '{"id": "b", "tags": ["cow"]}\n', "line 2: tag 'cow' is not a class of vocabulary 'pets'"),
        (GOOD + '{"id": "b", "tags": [], "scores": [1, 2]}\n', "line 2: 2 scores, but vocabulary 'pets' has 3"),
        (GOOD + '{"id": "b", "tags": [], "scores": {"cow": 1}}\n', "line 2: score of 'cow'"),
        (GOOD + '{"id": "b", "tags": [], "scores": [1, 2, "x"]}\n', "line 2: score 'x' of class 'bird'"),
        (GOOD + '{"id": "b", "tags": [], "scores": [1, 2, 1e39]}\n', r"line 2: score 1e\+39 of class 'bird' .*float32"),
        (GOOD + '{"id": "b", "tags": [], "scores": [1, 2, -1e39]}\n', r"line 2: score -1e\+39 of class 'bird'"),
        (GOOD + f'{{"id": "b", "tags": [], "scores": [1, 2, {10**400}]}}\n', r"score 10*\.\.\. of class 'bird'"),
        (GOOD + '{"id": "b", "tags": [], "scores": [1, 2, NaN]}\n', "score nan of class 'bird'"),
        (GOOD + '{"id": "b", "tags": [], "scores": 3}\n', "line 2: scores must be"),
        (GOOD + '{"id": "b", "tags": [], "size": [3]}\n', r"line 2: size \[3\]"),
        (GOOD + GOOD, "image 'a' appears twice"),
        (GOOD + '{"id": "../b", "tags": []}\n', "line 2: id '../b' is not a path inside a folder"),
        (GOOD + '{"id": "/etc/b", "tags": []}\n', "line 2: id '/etc/b' is not"),
        (GOOD + '{"id": "b/../../c", "tags": []}\n', "line 2: id"),
        (GOOD + '{"id": "", "tags": []}\n', "line 2: id '' is not"),
    ],
)
def test_bad_json_lines(tmp_path, text, message):
    path = tmp_path / "tags.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_tags(path, PETS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 0\nb x\n", "line 2: 'x' is not a class number"),
        ("a 0\nb -1\n", "line 2: '-1' is not a class number"),
        ("a 0\nb 3\n", "class 3 is no index of vocabulary 'pets'"),
        ("a 0\na 1\n", "image 'a' appears twice"),
    ],
)
def test_bad_plain_lines(tmp_path, text, message):
    path = tmp_path / "tags.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_tags(path, PETS)


def test_unreadable_files(tmp_path):
    (tmp_path / "photo.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UsageError, match=r"photo.txt: not a text file in UTF-8"):
        read_tags(tmp_path / "photo.txt", PETS)
    with pytest.raises(UsageError, match="No such file"):
        read_tags(tmp_path / "missing.jsonl", PETS)


def test_corrections_read_back():
    said = TagCorrection((0, 2), {1: "ann"}, {0: ""}, "checked", "a <note>", "bob")
    one = TagRecord("i", (1, 2), "i.jpg", (4, 5), None, 9, said)
    line = tag_line(one, PETS)
    assert line["tags"] == ["dog", "bird"]
    assert line["correction"] == {
        "machine": ["cat", "bird"], "added": {"dog": "ann"}, "removed": {"cat": ""}, "state": "checked",
        "note": "a <note>", "by": "bob",
    }  # fmt: skip
    assert parse_tag_line(json.loads(json.dumps(line)), PETS) == one
    assert not one.is_rejected
    bare = TagRecord("i", (0,), "i.jpg", (4, 5), correction=TagCorrection((0,), state="rejected"))
    assert tag_line(bare, PETS)["correction"] == {"machine": ["cat"], "state": "rejected"}
    assert parse_tag_line(tag_line(bare, PETS), PETS).is_rejected


@pytest.mark.parametrize(
    ("correction", "message"),
    [
        ([], "its correction is not"),
        ({"machine": "cat"}, "its correction is not"),
        ({"added": ["cat"]}, "its correction is not"),
        ({"added": {"cat": 1}}, "its correction is not"),
        ({"state": "gone"}, "its correction is not"),
        ({"state": ["checked"]}, "its correction is not"),
        ({"note": None}, "its correction is not"),
        ({"machine": ["cow"]}, "its correction names 'cow'"),
        ({"machine": [["cat"]]}, "its correction names"),
        ({"removed": {"cow": ""}}, "its correction names 'cow'"),
    ],
)
def test_bad_corrections_are_named(correction, message):
    with pytest.raises(UsageError, match=message):
        parse_tag_line({"id": "i", "tags": [], "correction": correction}, PETS, "line 3")

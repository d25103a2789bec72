"""Text files of users: marks, ends of lines and encodings of every system, and one line for what is no text."""

import json

import pytest

from tagclip.errors import UsageError, VocabularyError
from tagclip.text_files import json_text, parse_json, read_lines, read_text
from tagclip.vocabulary import Vocabulary


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends(tmp_path, encoding, end):
    path = tmp_path / "a.txt"
    path.write_bytes(end.join(["a ", "", "é\u2028b\x0b", "last\t"]).encode(encoding))
    lines = [(1, "a "), (2, ""), (3, "é\u2028b\x0b"), (4, "last\t")]  # only ends of lines end lines
    assert list(read_lines(path)) == lines
    assert read_text(path) == "\n".join(text for _, text in lines)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["classes.txt", "classes.yaml"])
def test_class_files_are_read_by_it(tmp_path, encoding, name):
    lines = ["chat d'été", "dog  "] if name.endswith("txt") else ["- chat d'été", "- dog  "]
    (tmp_path / name).write_bytes("\r\n".join(lines).encode(encoding))
    assert Vocabulary.from_file(tmp_path / name).names == ("chat d'été", "dog")


@pytest.mark.parametrize("content", [b"caf\xe9\n", b"\xff\xfe\x00", b"\xfe\xff\xd8\x00\x00\x00"])
def test_other_encodings_are_one_line(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(VocabularyError, match=r"^class file .*a.txt: not a text file in UTF-8; save it as UTF-8$"):
        read_text(tmp_path / "a.txt", "class file", error=VocabularyError)
    with pytest.raises(UsageError, match=r"^/.*a.txt: not a text file"):
        list(read_lines(tmp_path / "a.txt"))


def test_files_that_cannot_be_opened_are_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"list .*missing.txt: No such file"):
        read_text(tmp_path / "missing.txt", "list")
    with pytest.raises(UsageError, match="Is a directory"):
        list(read_lines(tmp_path))


def test_brackets_without_end_are_no_json():
    for text in ("[" * 100_000, '{"a":' * 100_000, b"[" * 100_000):
        with pytest.raises(ValueError, match="nested too deep"):
            parse_json(text)
    assert parse_json(b'{"a": [1]}') == {"a": [1]}


def test_json_keeps_letters_and_escapes_what_utf8_cannot_hold():
    text = json_text({"path": "é\udce9\udcff"})
    assert text == '{"path": "é\\udce9\\udcff"}'
    assert json.loads(text.encode()) == {"path": "é\udce9\udcff"}

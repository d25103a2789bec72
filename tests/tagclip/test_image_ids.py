"""Ids: text, inside their folder on every system, one per name; and lists of ids as people write them."""

import os
import tempfile
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagclip.errors import UsageError
from tagclip.image_ids import check_id, distinct_ids, escaped_id, id_text, original_name, read_ids, safe_id, split_line
from tests import nasty_names

NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 0x2F} & set(name) and name.strip(b"."))
# Bytes of file names, with a bias to those that matter here.
ODD = st.lists(st.sampled_from([b"%", b"E9", b"\xe9", b"\xc3\xa9", b"\\", b":", b".", b" ", b"con", b"a"]), min_size=1)
PATHS = st.lists(NAMES | ODD.map(b"".join).filter(lambda name: name not in (b".", b"..")), min_size=1, max_size=3)


@given(PATHS)
def test_every_file_name_has_an_id_that_is_text_and_leads_back_to_it(parts):
    path = os.fsdecode(b"/".join(parts))
    id_ = safe_id(path)
    id_.encode("utf-8")
    check_id(id_, "here")
    assert len(id_.split("/")) == len(parts)
    if id_ != path:
        assert original_name(id_) == path
        assert id_ == escaped_id(path)
    assert original_name(escaped_id(path)) == path
    assert safe_id(id_) == id_


@given(PATHS)
def test_no_id_leads_out_of_its_folder_on_windows(parts):
    folder = PureWindowsPath("C:/run/masks")
    mask = folder / f"{safe_id(os.fsdecode(b'/'.join(parts)))}.png"
    assert mask.drive == "C:"
    assert mask.parts[: len(folder.parts)] == folder.parts
    # Windows drops blanks and dots at the end of a name: one of nothing else would be the folder itself or its parent.
    assert all(part.rstrip(" .") for part in mask.parts[1:])


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        (b"street", "street"),
        (b"caf\xc3\xa9/100%", "café/100%"),
        (b"my%20photo", "my%20photo"),
        (b"12:30:05", "12:30:05"),
        (b"caf\xe9", "caf%E9"),
        (b"100% caf\xe9/b", "100%25 caf%E9/b"),
        (b"..\\..\\x", "..%5C..%5Cx"),
        (b"C:evil", "C%3Aevil"),
        (b"a/C:evil", "a/C%3Aevil"),
        (b"con", "%63on"),
        (b"Aux.v2/b", "%41ux.v2/b"),
        (b"LPT1", "%4CPT1"),
        (b"lpt10", "lpt10"),
        (b"console", "console"),
        (b"...", "%2E.."),
        (b" ", "%20"),
    ],
)
def test_ids_of_names(name, id_):
    assert safe_id(os.fsdecode(name)) == id_


@pytest.mark.parametrize("id_", ["a", "a/b", "über/日本", "a.b", "..a", "a..", "100%", "caf%E9", "a b", "./a"])
def test_good_ids_pass(id_):
    check_id(id_, "here")


@pytest.mark.parametrize(
    ("id_", "reason"),
    [
        ("", "empty or absolute"),
        (".", "empty or absolute"),
        ("/etc/x", "empty or absolute"),
        ("../x", "dots or blanks"),
        ("a/../../x", "dots or blanks"),
        ("a/.. /x", "dots or blanks"),
        ("..\\..\\x", "backslash"),
        ("\\\\server\\share", "backslash"),
        ("C:x", "a drive"),
        ("C:/x", "a drive"),
        ("a/nul", "device on Windows"),
        ("COM1.mask", "device on Windows"),
        ("a\0b", "null character"),
        ("caf\udce9", "not UTF-8"),
    ],
)
def test_ids_that_lead_elsewhere_are_refused(id_, reason):
    with pytest.raises(UsageError, match=rf"^tags, line 3: id .* is not a path inside a folder \(.*{reason}") as caught:
        check_id(id_, "tags, line 3")
    str(caught.value).encode("utf-8")


def test_half_a_character_from_another_system_becomes_text():
    """Windows may have names of half a surrogate pair; their ids are text, if not one that leads back."""
    assert safe_id("a\ud800") == "a%ED%A0%80"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lists_as_editors_of_all_systems_write_them(tmp_path, encoding, end):
    lines = ["# split", "street  ", "", "  café 3 7", "sub/a\t1 2", "my photo\t", "two words 5", "two 5", "last"]
    (tmp_path / "ids.txt").write_bytes(end.join(lines).encode(encoding))
    expected = ["street", "café", "sub/a", "my photo", "two words 5", "two", "last"]
    assert read_ids(tmp_path / "ids.txt", known={"two words 5", "street"}) == expected
    assert read_ids(tmp_path / "ids.txt") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"list .*ids.txt: nothing in it; write one id per line"),
        (b"# only this\n\n", "nothing in it"),
        (b"a\nb\na 1\n", r"ids.txt, line 3: 'a' is there already, line 1"),
        (b"a\n../b\n", r"ids.txt, line 2: id '../b' is not a path inside a folder"),
        (b"caf\xe9\n", "not a text file in UTF-8"),
    ],
)
def test_bad_lists(tmp_path, content, message):
    (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_ids(tmp_path / "ids.txt")


@pytest.mark.parametrize(
    ("content", "known", "ids"),
    [
        ("2008_000008 -1\n2008_000015  1\n", (), ["2008_000008", "2008_000015"]),
        ("a 0 2\n", ("a 0 2", "a"), ["a 0 2"]),
        ("my photo 1\nmy photo 2\n", ("my photo 1", "my photo 2"), ["my photo 1", "my photo 2"]),
        ("my photo one\nmy photo two\n", (), ["my photo one", "my photo two"]),
        ("my photo.jpg\n", ("my photo",), ["my photo"]),
        ("a.jpg masks/a.png\n", ("a",), ["a"]),
        ("s/a.JPG\n./s/b.jpg\ns\\c.jpg\n", ("s/a", "s/b", "s/c"), ["s/a", "s/b", "s/c"]),
        ("a.jpg\na.png\n", ("a.jpg", "a.png"), ["a.jpg", "a.png"]),
        ("e\u0301\n", ("é",), ["é"]),
        ("é\n", ("e\u0301",), ["e\u0301"]),
        ("con.jpg\n", ("%63on",), ["%63on"]),
        ('"a\\tb" 3\n"#1"\n"\n', (), ["a\tb", "#1", '"']),
    ],
)
def test_spellings_of_what_is_there(tmp_path, content, known, ids):
    (tmp_path / "ids.txt").write_text(content, encoding="utf-8")
    assert read_ids(tmp_path / "ids.txt", set(known)) == ids


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a b", ("a b", "", False)),
        ("  a b  ", ("a b", "", False)),
        ("a b\t3 4 ", ("a b", "3 4", True)),
        ('"a\\tb" 3', ("a\tb", "3", True)),
        ('"a" b', ("a", "b", True)),
        ('"a"b', ('"a"b', "", False)),
        ('"a', ('"a', "", False)),
    ],
)
def test_where_the_id_of_a_line_ends(line, expected):
    assert split_line(line) == expected


def test_images_that_differ_only_in_suffix_keep_it():
    assert distinct_ids(["a.jpg", "a.png", "b.JPG", "s/a.jpg", "v1.2"]) == {
        "a.jpg": "a.jpg", "a.png": "a.png", "b.JPG": "b", "s/a.jpg": "s/a", "v1.2": "v1.2",
    }  # fmt: skip
    # Without its suffix, the third would be called as the first is now.
    assert distinct_ids(["a.jpg", "a.png", "a.jpg.png"])["a.jpg.png"] == "a.jpg.png"


@given(nasty_names.ids)
def test_an_id_and_its_line(name):
    line = f"{id_text(name)} 1"
    line.encode()
    assert not {"\n", "\r"} & set(line)
    found, rest, is_certain = split_line(line)
    assert (found, rest) == (name, "1") if is_certain else found == f"{name} 1"


@given(nasty_names.id_lists)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back(ids):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ids.txt")
        path.write_bytes("".join(f"{id_text(name)}\n" for name in ids).encode())
        assert read_ids(path, set(ids)) == ids


def test_missing_list(tmp_path):
    with pytest.raises(UsageError, match=r"--val-list .*ids.txt: No such file"):
        read_ids(tmp_path / "ids.txt", what="--val-list")

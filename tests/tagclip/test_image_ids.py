"""Ids: text, inside their folder on every system, one per name; and lists of ids as people write them."""

import os
from pathlib import PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagclip.errors import UsageError
from tagclip.image_ids import check_id, escaped_id, original_name, read_ids, safe_id

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
    lines = ["# split", "street  ", "", "  café 3 7", "sub/a\t1 2", "my photo\t", "two words 5", "last"]
    (tmp_path / "ids.txt").write_bytes(end.join(lines).encode(encoding))
    expected = ["street", "café", "sub/a", "my photo", "two words 5", "last"]
    assert read_ids(tmp_path / "ids.txt", known={"two words 5", "street"}) == expected
    assert read_ids(tmp_path / "ids.txt") == [*expected[:4], "two", "last"]


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


def test_missing_list(tmp_path):
    with pytest.raises(UsageError, match=r"--val-list .*ids.txt: No such file"):
        read_ids(tmp_path / "ids.txt", what="--val-list")

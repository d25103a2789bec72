"""Which suffixes stand for images, and which of them can be read on this machine."""

import sys
from importlib import util

import pytest
from PIL import Image

from tagclip import image_formats
from tagclip.image_formats import (
    AVIF_SUFFIXES,
    FOREIGN_SUFFIXES,
    FORMATS,
    HEIF_SUFFIXES,
    IMAGE_SUFFIXES,
    SUFFIXES,
    is_heif,
    readable_suffixes,
    register_heif,
)


def test_suffixes_are_those_that_pillow_knows_for_these_formats():
    """Not for MPO, which Pillow's JPEG reader opens, and not for .pfm, whose values have no range."""
    Image.init()
    known = {suffix for suffix, format in Image.registered_extensions().items() if format in FORMATS}
    assert set(SUFFIXES) - {".mpo", ".pnm"} <= known
    assert known - {".pfm", ".avifs", ".avif"} <= set(SUFFIXES)
    assert not set(FOREIGN_SUFFIXES) & set(IMAGE_SUFFIXES)


@pytest.mark.parametrize(("missing", "lost"), [("pillow_heif", HEIF_SUFFIXES), (None, ())])
def test_suffixes_that_need_a_package_count_where_it_is(missing, lost, monkeypatch):
    find_spec = util.find_spec
    monkeypatch.setattr(image_formats, "find_spec", lambda name: None if name == missing else find_spec(name) or True)
    monkeypatch.setattr(image_formats, "FORMATS", (*FORMATS, "AVIF"))
    assert set(readable_suffixes()) == set(IMAGE_SUFFIXES) - set(lost)


def test_avif_counts_where_pillow_has_it(monkeypatch):
    monkeypatch.setattr(image_formats, "FORMATS", ("JPEG",))
    assert not set(AVIF_SUFFIXES) & set(readable_suffixes())


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\0\0\0\x1cftypheic", True),
        (b"\0\0\0\x24ftypmif1", True),
        (b"\0\0\0\x1cftypavif", False),
        (b"\0\0\0\x1cftypisom", False),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01", False),
        (b"\0\0\0\x1cjumpheic", False),
        (b"heic", False),
        (b"", False),
    ],
)
def test_heif_shows_in_the_first_bytes(head, expected):
    assert is_heif(head) is expected


def test_heif_is_registered_only_where_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert register_heif() is False


def test_pillow_heif_is_not_imported_before_it_is_needed():
    """It takes memory and time that folders of JPEGs can do without."""
    import subprocess

    code = "import sys, tagclip.images, tagclip.image_lists; sys.exit('pillow_heif' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

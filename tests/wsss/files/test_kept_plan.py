"""Headers that a run folder keeps: read back whole, refused where they are of something else or damaged."""

import numpy as np
import pytest

from wsss.files.kept_plan import PLAN_FILE, PhotoHeaders, read_headers, read_names, write_headers


@pytest.fixture
def headers():
    columns = (np.array(column, np.int64) for column in ([70, -1], [5, 0]))
    return PhotoHeaders("abc", True, *columns, *(np.array(column, np.int32) for column in ([4, 0], [6, 0])))


def test_written_and_read(headers, tmp_path):
    write_headers(tmp_path / PLAN_FILE, tmp_path, headers, b"a\0.png\0b\0.png\0")
    found = read_headers(tmp_path / PLAN_FILE, True)
    assert found.digest == "abc"
    for name in ("bytes", "changed", "height", "width"):
        assert getattr(found, name).tolist() == getattr(headers, name).tolist()
    assert read_names(tmp_path / PLAN_FILE) == [b"a", b".png", b"b", b".png"]
    assert read_headers(tmp_path / PLAN_FILE, False) is None  # sizes of photos that are not turned


@pytest.mark.parametrize("content", [None, b"", b"no archive", "cut"])
def test_damaged(headers, tmp_path, content):
    path = tmp_path / PLAN_FILE
    if content == "cut":
        write_headers(path, tmp_path, headers, b"a\0.png\0")
        content = path.read_bytes()[:-200]
    if content is not None:
        path.write_bytes(content)
    assert read_headers(path, True) is None
    assert read_names(path) == []


def test_columns_that_do_not_fit(headers, tmp_path):
    path = tmp_path / PLAN_FILE
    values = {"format": 1, "digest": np.frombuffer(b"abc", np.uint8), "apply_exif": True, "bytes": headers.bytes,
              "changed": headers.changed, "height": headers.height, "width": headers.width}  # fmt: skip
    for change in ({"height": np.zeros(3, np.int32)}, {"width": np.zeros(2)}, {"format": 2}):
        with path.open("wb") as file:
            np.savez(file, **{**values, **change})
        assert read_headers(path, True) is None
    with path.open("wb") as file:
        np.savez(file, **{**values, "bytes": np.array([{}, {}], object)})  # what would need pickle
    assert read_headers(path, True) is None

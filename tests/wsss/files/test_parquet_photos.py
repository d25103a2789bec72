"""Parquet files of photos: which column, which ids, what is refused, and that rows are read one by one."""

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagclip.errors import ImageError, UsageError
from tests.wsss.files.shards import write_parquet
from wsss.files import parquet_photos
from wsss.files.parquet_photos import table_cells

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(path, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return str(path)


def pictures(*rows):
    return pa.array([{"bytes": content, "path": name} for content, name in rows], PICTURE)


def test_the_layout_of_datasets(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number in range(5):
        (folder / "sub" / f"{number}.jpg").write_bytes(bytes([number]) * (10 + number))
    path = write_parquet(tmp_path / "train.parquet", folder)
    found = list(table_cells(str(path)))
    assert [name for name, _ in found] == [f"sub/{number}" for number in range(5)]
    assert [cell.relative for _, cell in found] == [f"sub/{number}.jpg" for number in range(5)]
    assert [cell.read_bytes() for _, cell in found] == [bytes([number]) * (10 + number) for number in range(5)]
    assert [(cell.group, cell.row) for _, cell in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    last = pickle.loads(pickle.dumps(found[-1][1]))
    assert last.stat().st_size == 14
    assert last.open().read(3) == b"\4\4\4"


@pytest.mark.parametrize(
    ("columns", "ids", "paths"),
    [
        ({"image": pictures((b"x", "a/b.jpg"), (b"y", "c.png"))}, ["a/b", "c"], ["a/b.jpg", "c.png"]),
        ({"image": pictures((b"x", None), (b"y", None))}, ["t/0000000", "t/0000001"], ["t/0000000", "t/0000001"]),
        ({"id": [7, 8], "jpg": pa.array([b"x", b"y"])}, ["7", "8"], ["7", "8"]),
        ({"file_name": ["a.JPG", "b.x"], "content": pa.array([b"x", b"y"])}, ["a", "b.x"], ["a.JPG", "b.x"]),
        # The mask is a picture, too, and `image` is the photo.
        ({"mask": pictures((b"m", "m.png"), (b"m", "n.png")), "image": pictures((b"x", "a.jpg"), (b"y", "b.jpg")),
          "id": ["a", "b"]}, ["a", "b"], ["a.jpg", "b.jpg"]),
        # An id of its own, and a name that says another: the id is the id, the name gives the suffix.
        ({"id": ["k1", "k2"], "image": pictures((b"x", "/home/me/a.jpg"), (b"y", "b.jpg"))},
         ["k1", "k2"], ["k1.jpg", "k2.jpg"]),
    ],
)  # fmt: skip
def test_columns_and_ids(tmp_path, columns, ids, paths):
    found = list(table_cells(table(tmp_path / "t.parquet", **columns)))
    assert [name for name, _ in found] == ids
    assert [cell.relative for _, cell in found] == paths
    assert [cell.read_bytes() for _, cell in found] == [b"x", b"y"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": [1, 2]}, r"no column of pictures \(columns: label\)"),
        ({"one": pa.array([b"x"]), "two": pa.array([b"x"])}, "pictures may be in one or two"),
        ({"id": ["../a"], "image": pictures((b"x", None))}, "row 0: '../a' is no relative path"),
        ({"id": ["/a"], "image": pictures((b"x", None))}, "no relative path"),
        ({"id": ["a\\..\\b"], "image": pictures((b"x", None))}, "backslash"),
        ({"image": pictures((b"x", "../../a.jpg"))}, "no relative path"),
        ({"id": pa.array([None], pa.string()), "image": pictures((b"x", None))}, "row 0: has no id"),
    ],
)
def test_what_is_refused(tmp_path, columns, words):
    path = table(tmp_path / "t.parquet", **columns)
    with pytest.raises(UsageError, match=words) as error:
        list(table_cells(path))
    assert str(error.value).startswith(path)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(UsageError, match="No such file"):
        list(table_cells(str(path)))
    path.write_bytes(b"PAR1 and then nothing PAR1")
    with pytest.raises(UsageError, match=str(path)) as error:
        list(table_cells(str(path)))
    assert "\n" not in str(error.value)


def test_sizes_have_limits(tmp_path, monkeypatch):
    path = table(tmp_path / "t.parquet", id=["a"], image=pictures((bytes(5000), "a.jpg")))
    monkeypatch.setattr(parquet_photos, "MOST_BYTES", 4999)
    (found,) = table_cells(path)
    with pytest.raises(ImageError, match="5000 bytes, more than 4999"):
        found[1].read_bytes()
    monkeypatch.setattr(parquet_photos, "MOST_GROUP", 100)
    with pytest.raises(UsageError, match=r"row group 0 holds 5.* bytes of pictures, more than 100; write"):
        list(table_cells(path))


def test_rows_without_bytes_fail_alone(tmp_path):
    path = table(tmp_path / "t.parquet", id=["a", "b"], image=pictures((None, "a.jpg"), (b"y", "b.jpg")))
    first, second = (cell for _, cell in table_cells(path))
    with pytest.raises(ImageError, match="has no bytes"):
        first.read_bytes()
    assert second.read_bytes() == b"y"


def test_few_row_groups_are_held(tmp_path):
    ids = [str(number) for number in range(20)]
    path = table(tmp_path / "t.parquet", id=ids, image=pictures(*((name.encode(), f"{name}.jpg") for name in ids)))
    for name, cell in table_cells(path):
        assert cell.read_bytes() == name.encode()
    assert len(parquet_photos._groups._kept) <= parquet_photos.GROUPS_KEPT

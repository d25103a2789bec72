"""Photos in the cells of Parquet files, as Hugging Face's `datasets` writes them, read when they are asked for."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tagclip.errors import ImageError, UsageError
from tagclip.image_formats import IMAGE_SUFFIXES
from tagclip.image_ids import member_problem, without_suffix
from tagclip.stored_files import (
    MOST_BYTES,
    StoredFile,
    StoredStatus,
    file_system,
    is_of_this_process,
    is_url,
    store_errors,
)

ID_COLUMNS = ("id", "image_id", "key", "__key__", "file_name", "filename", "name")
IMAGE_COLUMNS = ("image", "img", "photo", "jpg", "bytes", "content")
MOST_GROUP = 2 << 30  # bytes of one row group's pictures
GROUPS_KEPT = 2


@dataclass(frozen=True)
class TableCell(StoredFile):
    """A picture in a cell.

    Attributes:
        table: path or address of the Parquet file. column: the leaf that holds the bytes, "image.bytes".
        group, row: row group, and row in it. stamp: changes with the file.
    """

    table: str
    relative: str
    column: str
    group: int
    row: int
    stamp: int = 0
    content: bytes | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.table}: {self.relative}"

    @property
    def is_of_this_process(self) -> bool:
        return is_of_this_process(self.table)

    def stat(self) -> StoredStatus:
        return StoredStatus(len(self._cell()), self.stamp)

    def fetch(self, start: int, end: int) -> bytes:
        return bytes(memoryview(self._cell())[start:end])

    def read_bytes(self) -> bytes:
        data = bytes(self._cell())
        if len(data) > MOST_BYTES:
            raise ImageError(f"{self}: {len(data)} bytes, more than {MOST_BYTES}; shrink it first")
        return data

    def _cell(self) -> Any:
        if self.content is not None:
            return self.content
        try:
            value = _groups.get((self.table, self.stamp, self.column, self.group), self._read_group)[self.row]
        except UsageError as error:
            raise ImageError(str(error)) from None
        except IndexError:
            raise ImageError(f"{self}: no such row; the file was changed") from None
        if not value.is_valid:
            raise ImageError(f"{self}: has no bytes; a path alone is no photo")
        return value.as_buffer()

    def _read_group(self) -> Any:
        with _opened(self.table) as file:
            return _leaf(file.read_row_group(self.group, columns=[self.column], use_threads=False), self.column)


def _leaf(table: Any, path: str) -> Any:
    """A column, or a field of a column of structs ("image.bytes")."""
    import pyarrow as pa

    name, _, leaf = path.partition(".")
    column = table.column(name)
    return pa.chunked_array([chunk.field(leaf) for chunk in column.chunks]) if leaf else column


class _Groups:
    """The last few row groups that were read: neighbouring rows are asked for together."""

    def __init__(self) -> None:
        self._lock, self._kept = threading.Lock(), OrderedDict[Any, Any]()

    def get(self, key: Any, read: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = read()
                while len(self._kept) > GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


_groups = _Groups()  # of this process


@contextlib.contextmanager
def _opened(table: str) -> Iterator[Any]:
    """A Parquet file for a while; what goes wrong with it becomes one line."""
    with store_errors(table):
        import pyarrow.parquet as pq

        system, path = file_system(table) if is_url(table) else (None, table)
        file = pq.ParquetFile(path if system is None else system.open(path, "rb"))
        try:
            yield file
        finally:
            file.close(force=True)


def table_cells(table: str) -> Iterator[tuple[str, TableCell]]:
    """(id, picture) of every row of a Parquet file.

    Pictures are a column of structs with `bytes` (and `path`), or a column of bytes. Ids are a column `id`, `image_id`,
    `key`, `file_name` or the like; else the paths; else the file's name and the row's number.

    Args:
        table: path or address.

    Raises:
        UsageError: no such file, damaged, no column of pictures or several, an id that is no relative path, or row
            groups that do not fit into memory.
        RequirementError: pyarrow is missing.
    """
    stamp = 0 if is_url(table) else _time_of(table)
    with _opened(table) as file:
        schema = file.schema_arrow
        column, paths = _picture_column(table, schema)
        id_column = next((name for name in ID_COLUMNS if name in schema.names and _is_id(schema.field(name))), None)
        wanted = [name for name in (id_column, paths) if name is not None]
        stem = without_suffix(PurePosixPath(table.replace(os.sep, "/")).stem)
        number = 0
        for group in range(file.num_row_groups):
            _refuse_large(table, file, group, column)
            rows = file.metadata.row_group(group).num_rows
            found = file.read_row_group(group, columns=wanted, use_threads=False) if wanted else None
            ids = found.column(id_column).to_pylist() if found is not None and id_column else [None] * rows
            names = _leaf(found, paths).to_pylist() if found is not None and paths else [None] * rows
            for row, (given, path) in enumerate(zip(ids, names, strict=True)):
                name, relative = _named(table, number, given, path, stem, paths_only=id_column is None)
                yield name, TableCell(table, relative, column, group, row, stamp)
                number += 1


def _time_of(table: str) -> int:
    try:
        return Path(table).stat().st_mtime_ns
    except OSError as error:
        raise UsageError(f"{table}: {error.strerror or error}") from None


def _picture_column(table: str, schema: Any) -> tuple[str, str | None]:
    """The leaf with the bytes, and the one with the paths if there is any."""
    import pyarrow as pa

    def is_bytes(kind: Any) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found: dict[str, tuple[str, str | None]] = {}
    for place in schema:
        if is_bytes(place.type):
            found[place.name] = (place.name, None)
        elif pa.types.is_struct(place.type):
            inner = {one.name: one.type for one in place.type}
            if "bytes" in inner and is_bytes(inner["bytes"]) and "." not in place.name:
                found[place.name] = (f"{place.name}.bytes", f"{place.name}.path" if "path" in inner else None)
    if not found:
        raise UsageError(
            f"{table}: no column of pictures (columns: {', '.join(schema.names[:8])}); one holds structs with `bytes` "
            "and `path`, or bytes"
        )
    chosen = next((name for name in IMAGE_COLUMNS if name in found), None) or next(iter(found))
    if len(found) > 1 and chosen not in IMAGE_COLUMNS:
        raise UsageError(
            f"{table}: pictures may be in {' or '.join(found)}; name the column of photos `image`"
        )
    return found[chosen]


def _is_id(place: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(place.type) or pa.types.is_large_string(place.type) or pa.types.is_integer(place.type)


def _refuse_large(table: str, file: Any, group: int, column: str) -> None:
    described = file.metadata.row_group(group)
    for place in range(described.num_columns):
        leaf = described.column(place)
        if leaf.path_in_schema == column and leaf.total_uncompressed_size > MOST_GROUP:
            raise UsageError(
                f"{table}: row group {group} holds {leaf.total_uncompressed_size} bytes of pictures, more than "
                f"{MOST_GROUP}; write it with smaller row groups, of 100 rows, say"
            )


def _named(
    table: str, number: int, given: Any, path: Any, stem: str, *, paths_only: bool
) -> tuple[str, str]:
    """Id and relative path of a row."""
    place = f"{table}, row {number}"
    path = path.removeprefix("./") if isinstance(path, str) and path else None
    suffix = PurePosixPath(path).suffix if path is not None else ""
    suffix = suffix if suffix.lower() in IMAGE_SUFFIXES else ""
    if paths_only and path is None:
        name = f"{stem}/{number:07}"
        return name, name
    if given is None and not paths_only:
        raise UsageError(f"{place}: has no id; fill the column")
    relative = str(path) if paths_only else str(given)
    if problem := member_problem(relative):
        raise UsageError(f"{place}: {relative!r} is no relative path ({problem})")
    if paths_only:
        return without_suffix(relative), relative
    name = without_suffix(relative)
    if path is not None and without_suffix(path) == name:
        return name, path
    return name, relative if name != relative else name + suffix

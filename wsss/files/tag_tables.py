"""The tags of a run as a Parquet file beside `tags.jsonl`: the same records, for tools that read tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tagclip.errors import RunError
from tagclip.text_files import json_text
from wsss.files.atomic import atomic_file
from wsss.files.run_files import json_lines

TAG_TABLE = "tags.parquet"
ROWS = 4_096  # of a row group


def write_tag_table(lines: Path, table: Path, scratch: Path) -> None:
    """Writes the records of a tags.jsonl as Parquet, a few thousand at a time.

    Columns: id, path, height, width, file_size, tags (names), scores (float32, in class order; with `scored` they are
    those of the classes that it names), correction (JSON text).

    Raises:
        RequirementError: pyarrow is missing. RunError: damaged records, full disk.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema([
        ("id", text), ("path", text), ("height", pa.int32()), ("width", pa.int32()), ("file_size", pa.int64()),
        ("tags", pa.list_(text)), ("scores", pa.list_(pa.float32())), ("scored", pa.list_(text)), ("correction", text),
    ])  # fmt: skip
    with (
        atomic_file(table, scratch, durable=True) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        rows: list[dict[str, Any]] = []
        for line, _ in json_lines(lines):
            rows.append(_row(line))
            if len(rows) == ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    height, width = line.get("size") or (None, None)
    scores, correction = line.get("scores"), line.get("correction")
    by_name = isinstance(scores, dict)
    return {
        "id": line["id"], "path": line.get("path"), "height": height, "width": width,
        "file_size": line.get("file_size"), "tags": line["tags"],
        "scores": list(scores.values()) if isinstance(scores, dict) else scores,
        "scored": list(scores) if by_name and scores is not None else None,
        "correction": None if correction is None else json_text(correction),
    }  # fmt: skip


def tag_lines(root: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Lines of a run's tags and where each stands: of `tags.jsonl`, or, where that is not, of `tags.parquet`.

    Raises:
        RunError: neither is there, or it is damaged. RequirementError: pyarrow is missing.
    """
    path, table = root / "tags.jsonl", root / TAG_TABLE
    if path.is_file():
        yield from json_lines(path)
    elif table.is_file():
        yield from _table_lines(table)
    else:
        raise RunError(f"{root}: no tags.jsonl, the run is not complete; run its command again")


def _table_lines(table: Path) -> Iterator[tuple[dict[str, Any], str]]:
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            number = 0
            for batch in file.iter_batches(batch_size=ROWS):
                for row in batch.to_pylist():
                    yield _line(row), f"{table} row {number}"
                    number += 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{table}: damaged ({' '.join(str(error).split())}); copy it again") from None


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    scores, scored = row["scores"], row["scored"]
    line = {
        "id": row["id"], "path": row["path"], "size": None if row["height"] is None else [row["height"], row["width"]],
        "file_size": row["file_size"], "tags": row["tags"],
        "scores": scores if scored is None else dict(zip(scored, scores, strict=True)),
        "correction": None if row["correction"] is None else json.loads(row["correction"]),
    }  # fmt: skip
    return {key: value for key, value in line.items() if value is not None}

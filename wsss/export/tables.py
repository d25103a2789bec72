"""Tables of tags, scores and coverage: one row per image, as CSV and as Parquet.

Columns: id, file, split, width, height, tags, state, note, `score CLASS` and `coverage CLASS` per class, `coverage
background` (where there is one) and `coverage ignored`. Coverage is a share of the image's pixels, empty where there
is no mask. In CSV tags are a JSON list, and a text that a spreadsheet would take for a formula begins with an
apostrophe.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.errors import UsageError
from tagclip.text_files import json_text
from wsss.export.export_plan import plain_path
from wsss.export.format_writer import ExportJob, ExportSample, FormatWriter, require_same
from wsss.files.atomic import disk_errors

CSV_FILE, PARQUET_FILE = "images.csv", "images.parquet"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
BOM = "\ufeff"
ROWS = 1000

GUIDE = """# Table

`{file}`: one row per image. `pandas.read_{kind}("{file}")`{more}. Coverage is a share of the image's pixels.
"""


class _TableWriter(FormatWriter):
    needs_masks = False
    wants_photos = False
    known_by_id = True

    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        names = self.vocabulary.names
        rest = ["background"] if self.vocabulary.has_background else []
        return [
            "id", "file", "split", "width", "height", "tags", "state", "note",
            *(f"score {name}" for name in names),
            *(f"coverage {name}" for name in [*names, *rest, "(ignored)"]),
        ]  # fmt: skip

    def row(self, sample: ExportSample) -> dict[str, Any]:
        """Values by column; None where nothing is known."""
        names, job = self.vocabulary.names, self.job
        values: dict[str, Any] = {
            "id": sample.id, "file": plain_path(str(sample.photo or sample.file_name)), "split": sample.split,
            "width": sample.size.width, "height": sample.size.height, "tags": [names[index] for index in sample.tags],
            "state": sample.state, "note": sample.note or None,
        }  # fmt: skip
        values.update({f"score {name}": sample.score(index) for index, name in enumerate(names)})
        if sample.mask is None:
            return values
        counts = np.bincount(sample.mask.ravel(), minlength=job.ignored + 1) / sample.mask.size
        counts = counts.round(6)
        values.update({f"coverage {name}": float(counts[index + job.first]) for index, name in enumerate(names)})
        if self.vocabulary.has_background:
            values["coverage background"] = float(counts[0])
        values["coverage (ignored)"] = float(counts[job.ignored])
        return values


class CsvWriter(_TableWriter):
    """Writes images.csv."""

    used = frozenset({"bom"})

    def __init__(self, job: ExportJob):
        super().__init__(job)
        self.path = job.folder.path(CSV_FILE)
        with disk_errors(self.path):
            self.file = self.path.open("w", encoding="utf-8", newline="")
            self.file.write(BOM if job.options.bom else "")
            self.file.write(csv_line([harmless(name) for name in self.columns()]))

    def add(self, sample: ExportSample) -> None:
        row = self.row(sample)
        row["tags"] = json_text(row["tags"])
        cells = [row.get(column) for column in self.columns()]
        with disk_errors(self.path):
            self.file.write(csv_line([harmless(cell) if isinstance(cell, str) else _number(cell) for cell in cells]))

    def finish(self) -> None:
        with disk_errors(self.path):
            self.file.close()
        self.write_guide(GUIDE.format(file=CSV_FILE, kind="csv", more="; `json.loads` reads the column `tags`"))

    def known(self, folder: Path) -> set[str]:
        path = folder / CSV_FILE
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            require_same(str(path), next(rows, []), [harmless(name) for name in self.columns()])
            return {row[0].removeprefix("'") if row[0][1:2] in FORMULA else row[0] for row in rows if row}

    def combine(self, name: str, there: Path, new: Path) -> str | None:
        if name != CSV_FILE:
            return None
        old = there.read_text(encoding="utf-8")
        _, _, fresh = new.read_text(encoding="utf-8").partition("\n")
        return old + ("" if old.endswith("\n") else "\n") + fresh


class ParquetWriter(_TableWriter):
    """Writes images.parquet."""

    def __init__(self, job: ExportJob):
        super().__init__(job)
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"width": pa.int32(), "height": pa.int32(), "tags": pa.list_(pa.string())}
        text = {"id", "file", "split", "state", "note"}
        self.schema = pa.schema(
            [(name, pa.string() if name in text else kinds.get(name, pa.float32())) for name in self.columns()]
        )
        self.path = job.folder.path(PARQUET_FILE)
        self.writer = pq.ParquetWriter(self.path, self.schema)
        self.rows: list[dict[str, Any]] = []

    def add(self, sample: ExportSample) -> None:
        self.rows.append(self.row(sample))
        if len(self.rows) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        with disk_errors(self.path):
            self.writer.write_table(pa.Table.from_pylist(self.rows, self.schema))
        self.rows = []

    def finish(self) -> None:
        self._flush()
        self.writer.close()
        self.write_guide(GUIDE.format(file=PARQUET_FILE, kind="parquet", more=""))

    def known(self, folder: Path) -> set[str]:
        import pyarrow.parquet as pq

        path = folder / PARQUET_FILE
        try:
            file = pq.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"--merge-into: {path} cannot be read ({error})") from None
        require_same(str(path), file.schema_arrow.names, self.columns())
        return {str(one) for batch in file.iter_batches(columns=["id"]) for one in batch.column(0).to_pylist()}

    def combine(self, name: str, there: Path, new: Path) -> bytes | None:
        if name != PARQUET_FILE:
            return None
        import pyarrow as pa
        import pyarrow.parquet as pq

        target = self.job.folder.parts / "joined.parquet"
        with pq.ParquetWriter(target, self.schema) as writer:
            for path in (there, new):
                for batch in pq.ParquetFile(path).iter_batches(batch_size=ROWS):
                    writer.write_table(pa.Table.from_batches([batch]).cast(self.schema))
        return target.read_bytes()


def harmless(text: str) -> str:
    """A text as a spreadsheet shows it: with an apostrophe in front where it would compute it."""
    return f"'{text}" if text.startswith(FORMULA) else text


def csv_line(cells: list[Any]) -> str:
    """A line of CSV with its end."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _number(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value

"""Hugging Face datasets: Parquet shards with photo, mask, tags and scores inside, and a dataset card.

`image` and `mask` are `Image` features (the mask is the run's own PNG: 0 background, class c as c + 1, 255 or 65535
ignored), `tags` a `Sequence(ClassLabel)`, whose names are in the schema.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tagclip.errors import UsageError
from wsss.export.export_plan import plain_path
from wsss.export.format_writer import ExportJob, ExportSample, FormatWriter, require_same
from wsss.files.atomic import disk_errors

ROWS, GROUP_BYTES, SHARD_BYTES = 100, 32 << 20, 400 << 20  # of a row group and of a file

CARD = """---
license: unknown  # choose one: the photos' owners keep their rights
task_categories:
- image-segmentation
- image-classification
configs:
- config_name: default
  data_files:
{files}
---

# {name}

Photos with pseudo masks and tags, made by {producer} from class names alone; nobody drew them.

```python
from datasets import load_dataset
dataset = load_dataset("THIS_FOLDER")          # or after `huggingface-cli upload NAME THIS_FOLDER --repo-type dataset`
row = dataset["{split}"][0]                       # image, mask (PIL), tags (class indices), scores, id
dataset["{split}"].features["tags"].feature.names
```

Mask values: {meaning}, {ignored} ignored. `scores` has one number per class, NaN where none is known.
"""


class HfWriter(FormatWriter):
    """See the module."""

    holds_photos = True
    known_by_id = True

    def __init__(self, job: ExportJob):
        super().__init__(job)
        self.schema = hf_schema(job.vocabulary.names)
        self.rows: dict[str, list[dict[str, Any]]] = {split: [] for split in job.splits}
        self.bytes = dict.fromkeys(job.splits, 0)
        self.shards: dict[str, list[Path]] = {split: [] for split in job.splits}
        self.writers: dict[str, Any] = {}
        self.written = dict.fromkeys(job.splits, 0)

    def add(self, sample: ExportSample) -> None:
        mask, names = self.job.mask_png(sample.labels), self.vocabulary.names
        content = sample.content
        path = sample.file_name if content is not None or self.job.photo_root is None else plain_path(str(sample.photo))
        scores = [float("nan")] * len(names) if sample.scores is None else sample.scores.tolist()
        row = {
            "id": sample.id,
            "image": {"bytes": content, "path": path},
            "mask": {"bytes": mask, "path": f"{sample.name}.png"},
            "tags": list(sample.tags),
            "scores": scores,
        }
        split = sample.split
        self.rows[split].append(row)
        self.bytes[split] += len(mask) + len(content or b"")
        if len(self.rows[split]) >= ROWS or self.bytes[split] >= GROUP_BYTES:
            self._flush(split)

    def _flush(self, split: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if split not in self.writers:
            path = self.job.folder.parts / f"{split}-{len(self.shards[split])}.parquet"
            self.shards[split].append(path)
            self.writers[split] = pq.ParquetWriter(path, self.schema)
        with disk_errors(self.shards[split][-1]):
            self.writers[split].write_table(pa.Table.from_pylist(self.rows[split], self.schema))
        self.written[split] += self.bytes[split]
        self.rows[split], self.bytes[split] = [], 0
        if self.written[split] >= SHARD_BYTES:
            self.writers.pop(split).close()
            self.written[split] = 0

    def finish(self) -> None:
        files = []
        first = self._shards_there()
        for split in self.job.splits:
            if self.rows[split] or not self.shards[split]:
                self._flush(split)
            if split in self.writers:
                self.writers.pop(split).close()
            count = len(self.shards[split])
            for number, path in enumerate(self.shards[split]):
                name = f"data/{split}-{number:05d}-of-{count:05d}.parquet"
                if self.job.merge:
                    name = f"data/{split}-added-{first + number:05d}.parquet"
                with disk_errors(path):
                    path.replace(self.job.folder.path(name))
            files.append(f"  - split: {split.replace('-', '_')}\n    path: data/{split}-*.parquet")
        zero = "0 background, class c is c + 1" if self.vocabulary.has_background else "class c is c"
        text = CARD.format(
            files="\n".join(files), name=_one_line(self.job.run.absolute().name), producer="tagclip-wsss", meaning=zero,
            ignored=self.job.ignored, split=self.job.splits[0].replace("-", "_"),
        )  # fmt: skip
        self.job.folder.write("README.md", text)

    def _shards_there(self) -> int:
        return sum(1 for _ in (self.job.folder.target / "data").glob("*.parquet")) if self.job.merge else 0

    def known(self, folder: Path) -> set[str]:
        import pyarrow.parquet as pq

        found: set[str] = set()
        for path in sorted((folder / "data").glob("*.parquet")):
            try:
                file = pq.ParquetFile(path)
                features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
                names = features["tags"]["feature"]["names"]
                ids = {str(one) for batch in file.iter_batches(columns=["id"]) for one in batch.column(0).to_pylist()}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UsageError(f"--merge-into: {path} is no shard of an export ({error})") from None
            require_same(str(path), names, list(self.vocabulary.names))
            found |= ids
        return found


def hf_schema(names: tuple[str, ...]) -> Any:
    """Arrow schema with the features in its metadata, as `datasets` writes them.

    Raises:
        ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [
        ("id", pa.string()), ("image", image), ("mask", image), ("tags", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float32())),
    ]  # fmt: skip
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "mask": {"_type": "Image"},
        "tags": {"feature": {"names": list(names), "_type": "ClassLabel"}, "_type": "Sequence"},
        "scores": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=metadata)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip() or "data set"

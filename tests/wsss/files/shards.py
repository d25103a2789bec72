"""Folders of photos as tar shards, Parquet files and objects, for tests."""

import io
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq


def files_of(folder: Path) -> dict[str, bytes]:
    """Contents by relative path, sorted."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def write_tar(path: Path, members: dict[str, bytes], kind: str = "w") -> Path:
    """A tar shard of these members."""
    with tarfile.open(path, kind) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def odd_tar(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    """A shard of one photo and a member that no photo has."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        first = tarfile.TarInfo("a.jpg")
        first.size = 1
        archive.addfile(first, io.BytesIO(b"x"))
        archive.addfile(member, io.BytesIO(content) if content else None)
    return path


def split_in_two(folder: Path, out: Path) -> list[Path]:
    """A folder's photos as two tar shards."""
    out.mkdir(parents=True, exist_ok=True)
    items = list(files_of(folder).items())
    half = len(items) // 2
    parts = (items[:half], items[half:])
    return [write_tar(out / f"{number:03}.tar", dict(part)) for number, part in enumerate(parts)]


def write_parquet(path: Path, folder: Path, *, rows: int = 2, ids: bool = True) -> Path:
    """A folder's photos as a Parquet file, as `datasets` lays it out."""
    found = files_of(folder)
    columns = {"image": [{"bytes": content, "path": name} for name, content in found.items()]}
    if ids:
        columns["id"] = [name.rpartition(".")[0] for name in found]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", kind), *([("id", pa.string())] if ids else [])])
    pq.write_table(pa.table(columns, schema=schema), path, row_group_size=rows)
    return path


def upload(folder: Path, url: str) -> str:
    """A folder's files as objects; returns the address."""
    system, path = fsspec.core.url_to_fs(url)
    for name, content in files_of(folder).items():
        system.pipe_file(f"{path}/{name}", content)
    return url

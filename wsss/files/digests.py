"""Digests of many files, cheap where nothing has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tagclip.stored_files import FilePlace
from tagclip.text_files import parse_json
from wsss.files.provenance import write_record

BLOCK = 2**20


def file_digest(path: FilePlace) -> str:
    """sha256 (hex) of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def files_digest(files: Iterable[tuple[str, FilePlace]], cache: Path | None = None) -> str:
    """sha256 (hex) of names and contents, in whatever order they come.

    Args:
        files: (name, path) of each.
        cache: JSON file with the size, time of change and digest of each file; what still has the same size and time
            is not read again. It is written where it does not exist.
    """
    known = _read_cache(cache)
    entries: dict[str, list[Any]] = {}
    for name, path in files:
        status = path.stat()
        old = known.get(name)
        if isinstance(old, list) and old[:2] == [status.st_size, status.st_mtime_ns] and len(old) == 3:
            entries[name] = old
        else:
            entries[name] = [status.st_size, status.st_mtime_ns, file_digest(path)]
    if cache is not None and entries != known:
        write_record(cache, entries)
    whole = hashlib.sha256()
    for name in sorted(entries):
        whole.update(f"{name}\0{entries[name][2]}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def _read_cache(cache: Path | None) -> dict[str, Any]:
    try:
        known = parse_json(cache.read_text(encoding="utf-8")) if cache is not None else {}
    except (OSError, ValueError):  # a damaged cache only costs the time to read the files
        return {}
    return known if isinstance(known, dict) else {}

"""The one reader of id lists."""

from __future__ import annotations

from pathlib import Path

from tagclip.errors import UsageError


def read_ids(path: Path) -> list[str]:
    """First word of each line; blank lines and `#` comments are left out.

    Raises:
        UsageError: an id twice, or none at all.
    """
    ids = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    ids = [id_ for id_ in ids if not id_.startswith("#")]
    if not ids:
        raise UsageError(f"{path}: the list is empty")
    if len(set(ids)) != len(ids):
        twice = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise UsageError(f"{path}: {twice} is listed twice")
    return ids

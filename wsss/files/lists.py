"""Lists of ids beside images and masks; `read_ids` is the one reader of them."""

from __future__ import annotations

from pathlib import Path

from tagclip.errors import UsageError
from tagclip.image_ids import read_ids

__all__ = ["find_list", "read_ids"]


def find_list(root: Path, name: str | Path) -> Path:
    """A list named relative to a data set or to the working directory.

    Raises:
        UsageError: neither is there.
    """
    for candidate in (root / name, Path(name)):
        if candidate.is_file():
            return candidate
    raise UsageError(f"list {name} does not exist, neither in {root} nor in the working directory")

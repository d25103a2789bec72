"""Is a file a trained tagger's? Without torch, for the command line."""

from __future__ import annotations

import zipfile
from pathlib import Path

FORMAT = "tagclip-tagger"


def is_tagger_file(path: Path | str | None) -> bool:
    """Whether a file is a tagger's, told without unpickling anything."""
    if path is None or not Path(path).is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return len(names) == 1 and FORMAT.encode() in archive.read(names[0])
    except (OSError, zipfile.BadZipFile):
        return False

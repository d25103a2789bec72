"""Reads the page's data files back, as a browser would."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np


def read_run(folder: Path) -> dict[str, Any]:
    """What `data/run.js` assigns."""
    text = (folder / "data" / "run.js").read_text(encoding="utf-8")
    pattern = r"var REVIEW = \{chunks: \[\], overlays: \{\}, masks: \{\}, run: (.*)\};\n"
    return json.loads(re.fullmatch(pattern, text)[1])


def read_chunks(folder: Path) -> list[dict[str, Any]]:
    """What the files `data/images-*.js` assign, in order."""
    found = []
    for place, path in enumerate(sorted((folder / "data").glob("images-*.js"))):
        found.append(json.loads(re.fullmatch(rf"REVIEW\.chunks\[{place}\] = (.*);\n", path.read_text())[1])["images"])
    return found


def read_script(path: Path) -> Any:
    """The value that a script of `thumbs` assigns."""
    return json.loads(re.fullmatch(r"REVIEW\.(?:overlays|masks)\[\d+\] = (.*);\n", path.read_text())[1])


def chunk_levels(chunk: dict[str, Any], classes: int) -> np.ndarray:
    """Scores of a chunk as levels, (n, C) uint16."""
    return np.frombuffer(base64.b64decode(chunk["scores"]), "<u2").reshape(-1, classes)

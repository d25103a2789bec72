"""Small readers of the files of a run folder: manifest, vocabulary, JSON lines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tagclip.errors import RunError
from tagclip.text_files import parse_json
from tagclip.vocabulary import Vocabulary

FORMAT = 1
REJECTED_FILE = "rejected.jsonl"  # lines of tags.jsonl, of images that a person has taken out of the data set
LEFT_FILE = "left.jsonl"  # lines of tags.jsonl, of images whose photos have left the collection
ASIDE = "aside"  # maps and masks of images that are not in the data set: rejected ones, and those without a photo
CHANGING = ("id", "state", "versions", "counts", "files", "photos", "corrections")  # no part of what a run is


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The folder's manifest, None if there is none.

    Raises:
        RunError: it is there and cannot be read.
    """
    path = root / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error}); start anew with --overwrite") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RunError(f"{path}: not a run of this version (format {FORMAT}); start anew with --overwrite")
    return manifest


def run_id(manifest: Mapping[str, Any]) -> str:
    """The id of a run: what its manifest says, or, in one of before ids were written, the id that it would have had.

    It is a digest of what the run was when it began (settings, weights, classes, images), so that it stays when
    thresholds change or photos are added.
    """
    if isinstance(known := manifest.get("id"), str):
        return known
    photos = manifest.get("photos")
    parts = {key: value for key, value in manifest.items() if key not in CHANGING}
    parts["sizes"] = photos.get("sizes") if isinstance(photos, dict) else None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def manifest_digest(root: Path) -> str:
    """sha256 (hex) of the folder's manifest.json; "" if there is none."""
    path = root / "manifest.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def run_vocabulary(root: Path) -> Vocabulary | None:
    """The vocabulary that a run folder was made with, None if it is no run folder."""
    manifest = read_manifest(root)
    return None if manifest is None else Vocabulary.from_dict(manifest["vocabulary"])


def json_lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Records of a JSON lines file and where each stands; nothing if there is no such file.

    Raises:
        RunError: a line that is no record.
    """
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{path} line {number}"
            try:
                row = parse_json(line)
            except ValueError as error:
                raise RunError(f"{place}: not JSON ({error}); make it again") from None
            if not isinstance(row, dict):
                raise RunError(f"{place}: not a record; make it again")
            yield row, place


def stored_lines(root: Path) -> dict[str, dict[str, Any]]:
    """The line of tags.jsonl of every image that a run has tagged, complete or not, by id."""
    found: dict[str, dict[str, Any]] = {}
    for path in (root / "tags.jsonl", root / REJECTED_FILE, root / LEFT_FILE, root / ".partial" / "tags.jsonl"):
        if not path.is_file():
            continue
        for text in path.read_bytes().splitlines():
            try:
                line = parse_json(text)
            except ValueError:  # cut short by a kill
                break
            if isinstance(line, dict) and isinstance(line.get("id"), str):
                found[line["id"]] = line
    return found

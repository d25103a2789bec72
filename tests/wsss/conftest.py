"""Fixtures of the run folder tests: one finished run that the others are compared with."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.wsss.runs import complete, contents, draw_images
from tests.wsss.segmentation import squares


@pytest.fixture(scope="session")
def finished(golden_clip, tmp_path_factory):
    """An undisturbed run: .images (folder), .paths, .run (folder), .counts, .files (digests), .cache (text rows)."""
    base = tmp_path_factory.mktemp("finished")
    paths = draw_images(base / "images")
    counts = complete(golden_clip, base / "images", base / "run", cache_dir=base / "cache")
    return SimpleNamespace(
        images=base / "images", paths=paths, run=base / "run", counts=counts, files=contents(base / "run"),
        cache=base / "cache",
    )  # fmt: skip


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Path:
    """A folder with `run` and `val`. Do not write into it."""
    root = tmp_path_factory.mktemp("squares")
    squares.run_folder(root / "run")
    squares.voc_folder(root / "val")
    return root

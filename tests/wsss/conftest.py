"""Fixtures of the run folder tests: one finished run that the others are compared with."""

from types import SimpleNamespace

import pytest

from tests.wsss.runs import complete, contents, draw_images


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

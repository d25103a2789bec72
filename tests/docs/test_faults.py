"""Every test that the pages of faults and findings name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


@pytest.mark.parametrize(("page", "least"), [("faults.md", 25), ("findings.md", 80)])
def test_every_named_test_exists(page, least):
    named, last = 0, ""
    text = (RESULTS / page).read_text(encoding="utf-8")
    for path, name in re.findall(r"`(tests/[\w/]+\.py|…)(?:::(\w+))?`", text):
        last = last if path == "…" else path
        file = (ROOT / last).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in file, (last, name)
        named += 1
    assert named >= least


@pytest.mark.parametrize("page", ["faults.md", "findings.md"])
def test_every_row_names_a_test_or_says_that_there_is_none(page):
    rows = [line for line in (RESULTS / page).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    bare = [row for row in rows if "`tests/" not in row and "`…::" not in row]
    headers = [row for row in bare if row.rstrip(" |").endswith("test")]
    assert [row for row in bare if row not in headers and not row.rstrip(" |").endswith("| none")] == []

"""Every test that the page of faults names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results" / "faults.md").read_text(encoding="utf-8")


def test_every_named_test_exists():
    named, last = 0, ""
    for path, name in re.findall(r"`(tests/[\w/]+\.py|…)(?:::(\w+))?`", PAGE):
        last = last if path == "…" else path
        text = (ROOT / last).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text, (last, name)
        named += 1
    assert named > 20

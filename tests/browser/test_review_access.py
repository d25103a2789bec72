"""Accessibility of the review page by axe-core: light and dark, wide and on a phone, with a dialog open, the charts."""

from pathlib import Path

import pytest

from tests.browser.conftest import AXE, PHONE, WIDE, shot

# View -> what opens it, and what leaves it again.
VIEWS = {
    "grid": ("0", "0"),
    "filtered": (
        "Review.app.rail.choose(0); Review.app.model.setThreshold(0, 4000); Review.app.model.toggleTag(1, 0)",
        "Review.app.rail.clear()",
    ),
    "empty": ("Review.app.view.filters.search = 'nothing'; Review.app.refresh()", "Review.app.rail.clear()"),
    "detail": ("Review.app.detail.open(Review.app.view.places[0])", "Review.app.detail.close()"),
    "charts": (
        "Review.app.showTab('charts'); document.querySelectorAll('details').forEach((one) => { one.open = true; })",
        "Review.app.showTab('images')",
    ),
    "help": ("Review.app.help()", "document.getElementById('about').close()"),
    "rail": ("innerWidth < 900 && document.getElementById('open-rail').click()", "0"),
}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(made_run, visit, size, scheme):
    visited = visit(made_run, size, scheme)
    page = visited.page
    page.emulate_media(reduced_motion="reduce")  # a colour on its way to another has the contrast of neither
    page.evaluate(Path(AXE).read_text(encoding="utf-8"))
    problems = []
    for view, (go, leave) in VIEWS.items():
        page.evaluate(go)
        page.wait_for_timeout(400)
        shot(visited, f"{'wide' if size == WIDE else 'phone'}-{scheme}-{view}")
        code = "(tags) => axe.run(document, { preload: false, runOnly: { type: 'tag', values: tags } })"
        found = page.evaluate(code, RULES)
        assert len(found["passes"]) > 15
        problems += [
            f"{view}: {one['id']}: {node['target']} {node['failureSummary']}"
            for one in found["violations"] for node in one["nodes"]
        ]  # fmt: skip
        page.evaluate(leave)
    assert problems == []

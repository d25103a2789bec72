"""Accessibility of the review page by axe-core: light and dark, wide and on a phone, with a dialog open, the charts."""

from pathlib import Path

import pytest

from tests.browser.conftest import AXE, PHONE, WIDE, shot

VIEWS = {
    "grid": "",
    "filtered": "Review.app.rail.choose(0); Review.app.model.setThreshold(0, 4000); Review.app.model.toggleTag(1, 0)",
    "empty": "Review.app.view.filters.search = 'nothing'; Review.app.refresh()",
    "detail": "Review.app.detail.open(Review.app.view.places[0])",
    "charts": "Review.app.showTab('charts'); document.querySelectorAll('details').forEach((one) => { one.open = true; })",
    "help": "Review.app.help()",
    "rail": "innerWidth < 900 && document.getElementById('open-rail').click()",
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(made_run, visit, size, scheme, view):
    visited = visit(made_run, size, scheme)
    page = visited.page
    page.evaluate(VIEWS[view])
    page.wait_for_timeout(400)
    shot(visited, f"{'wide' if size == WIDE else 'phone'}-{scheme}-{view}")
    page.evaluate(Path(AXE).read_text(encoding="utf-8"))
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("(tags) => axe.run(document, { runOnly: { type: 'tag', values: tags } })", rules)
    problems = [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found["violations"] for node in one["nodes"]]
    assert problems == []
    assert len(found["passes"]) > 15

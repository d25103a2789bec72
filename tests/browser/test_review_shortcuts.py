"""What the page does to be fast gives what the long way gives."""

import pytest

from tests.browser.conftest import until
from tests.tools.commands import command
from tests.wsss.review.synthetic_runs import RunRecipe, make_run

COUNT = 120


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A page of more images than a screen shows, each with mask and maps."""
    base = tmp_path_factory.mktemp("many")
    names = [f"class {place}" for place in range(8)]
    run = make_run(base / "run", base / "photos", RunRecipe([f"{place:03d}" for place in range(COUNT)], names))
    assert command("review")(["--run", str(run), "--workers", "1", "--quiet"]) == 0
    return run


def test_numbers_are_sorted_as_by_comparison(many, visit):
    code = """() => { const wrong = []; let seed = 1;
      const next = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
      const kinds = [() => next(), () => Math.round(5 * next()) / 5, () => -next(), () => next() - 0.5,
        () => Math.floor(65536 * next()),
        () => [0, -0, 1, -Infinity, Infinity, 1e-300, -1e-300][Math.floor(7 * next())]];
      for (const [number, kind] of kinds.entries()) for (const size of [0, 1, 2, 3000]) {
        const values = Float64Array.from({ length: size }, kind);
        const places = Array.from({ length: size }, (_, i) => i).filter((i) => i % 3 !== 1);
        const falling = (a, b) => (values[b] > values[a]) - (values[b] < values[a]) || a - b;
        const expected = [...places].sort(falling);
        if (String(Review.sorted(values, places)) !== String(expected)) wrong.push([number, size]);
      }
      return wrong; }"""
    assert visit(many).page.evaluate(code) == []


def test_doubts_after_a_step_are_those_of_all_classes_anew(many, visit):
    code = """() => { const { model } = Review.app, d = model.doubtInput, wrong = []; let seed = 7;
      const next = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
      const check = (step) => {
        const out = new Float64Array(d.images), best = new Float64Array(d.images), worst = new Int32Array(d.images);
        Review.doubt.all(d, out, best, worst);
        for (let i = 0; i < d.images; i++)
          if (out[i] !== model.doubts[i] || best[i] !== model.best[i] || worst[i] !== model.worst[i])
            wrong.push([step, i]);
      };
      for (let step = 0; step < 60; step++) {
        const c = Math.floor(next() * model.classes);
        if (step % 7 === 3) model.toggleTag(c, Math.floor(next() * model.images));
        else if (step % 11 === 5) model.resetThresholds([c]);
        else model.setThreshold(c, Math.floor(model.highest * next() * next()));
        if (step % 9 === 4) model.undo();
        check(step);
      }
      return wrong; }"""
    page = visit(many).page
    page.on("dialog", lambda dialog: dialog.accept())
    assert page.evaluate(code) == []


# The cards that are shown, in the order of the document: the image that each says, and what the view has there.
SHOWN = """() => { const { grid, view, model } = Review.app, found = [];
  for (const element of document.querySelectorAll('.card:not([hidden])')) {
    const place = Number(element.getAttribute('aria-posinset')) - 1, card = grid.cards.get(place);
    const i = view.places[place], name = element.querySelector('.name').textContent;
    const chips = [...element.querySelectorAll('.chip.is-on:not([hidden])')].map((chip) => Number(chip.dataset.class));
    found.push([place, card?.element === element && name === model.ids[i], chips, model.tagsOf(i)]);
  }
  return found; }"""
# Places on the screen without a card.
MISSING = """() => { const { grid, view } = Review.app, { scrollTop, clientHeight } = grid.scroller, rows = [];
  for (let place = 0; place < view.places.length; place++) {
    const y = Math.floor(place / grid.columns) * grid.rowHeight;
    const isSeen = y + grid.cardHeight > scrollTop && y < scrollTop + clientHeight - 16;
    if (isSeen && !grid.cards.has(place)) rows.push(place);
  }
  return rows; }"""
WAYS = (
    "Review.app.rail.choose(2)", "Review.app.rail.choose(2)", "document.getElementById('search').value = '1'",
    "document.getElementById('search').dispatchEvent(new Event('input'))",
    "(document.getElementById('search').value = '', Review.app.rail.clear())",
    "(Review.app.sort.value = 'name', Review.app.sort.dispatchEvent(new Event('change')))", "Review.app.turn.click()",
    "(Review.app.grid.scroller.scrollTop = 1500)", "Review.app.rail.choose(5)", "Review.app.rail.choose(5)",
    "(Review.app.sort.value = 'random', Review.app.sort.dispatchEvent(new Event('change')))",
    "Review.app.model.setThreshold(1, 3000)", "Review.app.model.setThreshold(1, 30000)", "Review.app.undo()",
    "Review.app.grid.go(117)", "Review.app.grid.go(0)",
)  # fmt: skip


def test_cards_say_their_images_in_the_order_of_the_view(many, visit):
    page = visit(many).page
    page.on("dialog", lambda dialog: dialog.accept())
    for way in WAYS:
        page.evaluate(way)
        until(page, "!Review.app.grid.waiting")
        page.wait_for_timeout(60)
        found = page.evaluate(SHOWN)
        places = [row[0] for row in found]
        assert places == sorted(places), way
        assert places == list(range(places[0], places[0] + len(places))), way
        for _, is_its, chips, tags in found:
            assert is_its, way
            assert set(chips) <= set(tags), way
            assert len(chips) >= min(len(tags), 2), way
        assert page.evaluate(MISSING) == [], way


def test_pictures_are_those_of_the_card_however_fast_the_view_changes(many, visit):
    page = visit(many).page
    for step in range(12):
        page.evaluate(f"Review.app.rail.choose({step} % 4)")
        page.wait_for_timeout(25 * (step % 3))
    page.evaluate("Review.app.rail.clear()")
    ready = """(() => { const cards = [...Review.app.grid.cards.values()];
      const isDrawn = (canvas) => !canvas.classList.contains('is-old');
      return !Review.app.grid.waiting && cards.length > 8
        && cards.every((card) => isDrawn(card.photo) && isDrawn(card.canvas)); })()"""
    until(page, ready)
    code = """async () => { const wrong = [], { grid, model } = Review.app;
      for (const card of grid.cards.values()) {
        const overlay = await Review.overlays.get(model, card.image, () => true);
        const mask = document.createElement('canvas');
        Review.overlays.paint(mask, overlay, model.run.colours, 'fill');
        if (card.canvas.toDataURL() !== mask.toDataURL()) wrong.push(model.ids[card.image]);
      }
      return wrong; }"""
    assert page.evaluate(code) == []
    # A page may not read back what it drew of files: photos are compared on the screen, with those of a fresh page.
    page.evaluate("Review.app.grid.go(0, false)")
    changed = page.locator("#images").screenshot()
    fresh = visit(many).page
    until(fresh, ready)
    assert fresh.evaluate("Review.app.view.places") == page.evaluate("Review.app.view.places")
    assert changed == fresh.locator("#images").screenshot()

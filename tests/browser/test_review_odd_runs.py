"""The review page of runs that lack something, or whose names are hostile."""

import pytest

from tagclip.tag_files import TagCorrection
from tests.browser.conftest import shot, until
from tests.tools.commands import command
from tests.wsss.review.synthetic_runs import NASTY, RunRecipe, make_run

CLASSES = ("<b>bold</b>", 'a "quoted" one', "__proto__", "constructor", "日本 猫")


@pytest.fixture
def reviewed(tmp_path):
    """Makes a synthetic run and its page."""

    def make(recipe: RunRecipe, name: str = "run"):
        run = make_run(tmp_path / name, tmp_path / "photos", recipe)
        assert command("review")(["--run", str(run), "--workers", "1", "--quiet"]) == 0
        return run

    return make


def test_hostile_names_are_text_and_their_photos_are_shown(reviewed, visit, tmp_path):
    visited = visit(reviewed(RunRecipe(list(NASTY), CLASSES), "<i>run #1 100%"))
    page = visited.page
    assert page.evaluate("document.querySelectorAll('i, b, .cards script, img[onerror]').length") == 0
    assert page.locator("#run-name").inner_text() == "<i>run #1 100%"
    assert set(page.evaluate("Review.app.model.ids")) == set(NASTY)
    assert page.locator(".class-name").first.inner_text() == "<b>bold</b>"
    for name in NASTY:
        page.evaluate("(id) => Review.app.detail.open(Review.app.model.place.get(id))", name)
        until(page, "!Review.app.detail.photo.hidden && Review.app.detail.photo.complete")
        assert page.locator("#detail-name").inner_text() == name
        assert page.evaluate("Review.app.detail.photo.naturalWidth") == 64
    page.keyboard.press("Escape")
    page.evaluate("Review.app.model.toggleTag(2, Review.app.model.place.get('__proto__'))")
    page.evaluate("Review.app.model.setThreshold(2, 100)")
    said = page.evaluate("JSON.stringify(Review.app.model.corrections(''))")
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    assert page.evaluate("JSON.stringify(Review.app.model.corrections(''))") == said
    assert '"__proto__":{"add":' in said
    assert '"thresholds":{"__proto__":0.002}' in said
    shot(visited, "hostile")


@pytest.mark.parametrize(
    "changes",
    [{"has_masks": False}, {"has_maps": False}, {"has_masks": False, "has_maps": False}, {"has_background": False}],
)
def test_runs_that_lack_something(reviewed, visit, changes):
    page = visit(reviewed(RunRecipe([f"{place}" for place in range(6)], **changes))).page
    page.keyboard.press("Enter")
    until(page, "!Review.app.detail.photo.hidden")
    if not changes.get("has_masks", True) and not changes.get("has_maps", True):
        assert page.get_by_text("No mask: this run has tags only").is_visible()
    for _ in range(4):
        page.keyboard.press("o")
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Charts").click()
    assert page.locator(".chart").count() >= 4


def test_the_confidence_of_masks_filters_and_sorts(reviewed, visit):
    page = visit(reviewed(RunRecipe(["a", "b", "c", "d"], confidence=[0.9, 0.6, 1.0, 0.7]))).page
    shown = "Review.app.view.places.map((i) => Review.app.model.ids[i])"
    page.get_by_label("Order", exact=True).select_option("confidence")
    assert page.evaluate(shown) == ["b", "d", "a", "c"]
    page.get_by_label("Confidence in percent, at most").fill("80")
    assert page.evaluate(shown) == ["b", "d"]
    page.keyboard.press("Escape")
    page.evaluate("Review.app.detail.open(1)")
    assert "Mean confidence of the mask: 60" in page.locator(".reason").first.inner_text()
    plain = visit(reviewed(RunRecipe(["a", "b"]), "plain")).page
    assert plain.get_by_label("Confidence in percent, at most").count() == 0
    assert plain.locator("#sort option[value=confidence]").count() == 0


def test_tags_without_scores(reviewed, visit):
    page = visit(reviewed(RunRecipe(["a", "b"], has_scores=False, rule=None))).page
    assert page.locator(".handle").count() == 0
    page.keyboard.press("1")
    assert "1 corrected" in page.locator("#counts").inner_text()
    page.get_by_role("tab", name="Charts").click()
    assert "Scores per class" not in page.locator("#charts h2").all_inner_texts()


def test_failures_and_photos_that_are_gone(reviewed, visit, tmp_path):
    run = reviewed(RunRecipe(["a", "b", "c", "d"], failures={"b": "tags"}))
    (tmp_path / "photos" / "c.png").unlink()
    (tmp_path / "photos" / "d.png").write_bytes(b"damaged")
    assert command("review")(["--run", str(run), "--quiet"]) == 0
    visited = visit(run)
    page = visited.page
    assert "1 failed" in page.locator("#counts").inner_text()
    open_image = "(id) => Review.app.detail.open(Review.app.model.place.get(id))"
    page.evaluate(open_image, "b")
    assert page.get_by_text("Failed (tags): b.png: <b>damaged</b>").is_visible()
    page.evaluate(open_image, "c")
    assert page.get_by_text("The photo is not there any more: this is its thumbnail.").is_visible()
    page.evaluate(open_image, "d")
    assert page.get_by_text("The photo cannot be read").first.is_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Failed", exact=True).click()
    assert page.evaluate("Review.app.view.places.map((i) => Review.app.model.ids[i])") == ["b"]


def test_a_photo_that_went_after_the_page_was_made(reviewed, visit, tmp_path):
    run = reviewed(RunRecipe(["a"]))
    (tmp_path / "photos" / "a.png").unlink()
    visited = visit(run)
    visited.page.keyboard.press("Enter")
    visited.page.get_by_text("The photo cannot be shown here").wait_for()
    assert "this is its thumbnail" in visited.page.locator(".remark").inner_text()
    visited.problems.clear()  # the browser logs the file that is not there


def test_a_run_that_is_reached_by_a_symbolic_link(reviewed, visit, tmp_path):
    run = reviewed(RunRecipe(["a"]))
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "link").symlink_to(run)
    visited = visit(run)
    page = visited.page
    page.goto(f"file://{tmp_path}/elsewhere/deep/link/review/index.html")
    until(page, "Review.app")
    page.keyboard.press("Enter")
    until(page, "!Review.app.detail.photo.hidden && Review.app.detail.photo.naturalWidth === 64")
    visited.problems.clear()  # the browser logs the first place, where it is not


def test_300_classes(reviewed, visit):
    names = [f"class number {place}" for place in range(300)]
    visited = visit(reviewed(RunRecipe([f"{place:02d}" for place in range(40)], names)))
    page = visited.page
    assert page.locator(".class").count() == 300
    page.locator("#class-search").fill("number 299")
    assert page.locator(".class:visible").count() == 1
    page.keyboard.press("Escape")
    page.evaluate("Review.app.detail.open(0)")
    assert page.locator(".scores .score").count() == 300
    page.get_by_label("Find a class in the list").fill("number 17")
    assert page.locator(".scores li:visible").count() == 11
    page.keyboard.press("Escape")  # clears the field, as in every search field
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Charts").click()
    shot(visited, "charts-300")


def test_a_second_review_shows_what_was_corrected(reviewed, visit):
    said = {
        "a": TagCorrection((0,), {1: "Anna"}, {0: "Anna"}, "checked", "a remark", "Anna"),
        "b": TagCorrection((0,), {}, {}, "rejected", "", "Anna"),
    }
    page = visit(reviewed(RunRecipe(["a", "b", "c"], corrections=said))).page
    assert "1 checked" in page.locator("#counts").inner_text()
    assert "1 corrected" in page.locator("#counts").inner_text()
    assert "1 rejected" in page.locator("#counts").inner_text()
    assert page.locator("#save").is_disabled()
    page.evaluate("Review.app.detail.open(0)")
    words = "Corrected before: added dog (Anna); removed cat (Anna); checked (Anna); the machine said cat."
    assert page.get_by_text(words).is_visible()
    assert page.locator("#note").input_value() == "a remark"
    page.evaluate("Review.app.model.setThreshold(1, 50000)")  # what a person said wins over thresholds
    assert page.evaluate("Review.app.model.has(1, 0)") is True
    page.evaluate("Review.app.toggleTag(1, 0)")
    corrections = page.evaluate("Review.app.model.corrections('')")
    assert corrections["images"] == {"a": {"add": [], "remove": ["dog"], "state": "checked", "note": "a remark"}}


def test_an_empty_run(reviewed, visit):
    page = visit(reviewed(RunRecipe([]))).page
    assert page.get_by_text("This run has no images").is_visible()
    page.get_by_role("tab", name="Charts").click()
    assert page.get_by_text("nothing to draw").is_visible()


def test_a_page_that_is_not_of_one_piece_says_so(reviewed, visit):
    run = reviewed(RunRecipe(["a"]))
    path = run / "review" / "data" / "images-000.js"
    path.write_text(path.read_text().replace('"build":"', '"build":"x'))
    assert visit(run).page.get_by_text("not of one piece").is_visible()
    path.unlink()
    visited = visit(run)
    assert visited.page.get_by_text("not of one piece").is_visible()
    visited.problems.clear()  # the browser logs the file that is not there


def test_a_browser_that_keeps_nothing(reviewed, visit, browser, tmp_path):
    run = reviewed(RunRecipe(["a", "b"]))
    visited = visit(run)
    page = visited.page
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })")
    page.reload()
    page.keyboard.press("x")
    page.get_by_text("cannot keep your work over a reload").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())

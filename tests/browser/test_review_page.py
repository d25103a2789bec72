"""The review page as a person uses it: look, filter, move thresholds, correct, undo, save, come back."""

import json
import re
import shutil

import pytest

from tagclip.vocabulary import Vocabulary
from tests.browser.conftest import PHONE, SCENES, shot, until
from tests.tools.commands import command
from tests.wsss.review.doubt_cases import PAGE_CODE, as_page_input, doubt_case
from wsss.files.corrections import corrected_tags, read_corrections
from wsss.files.run_reader import RunReader
from wsss.review.doubt import doubt_order, doubts

NAMES = Vocabulary.named("voc").names


def shown(page) -> int:
    """How many images the grid has."""
    return page.evaluate("Review.app.view.places.length")


def ids(page) -> list[str]:
    return page.evaluate("Review.app.view.places.map((i) => Review.app.model.ids[i])")


def tags(page, image: str) -> set[str]:
    """Tags of an image, as the page has them now."""
    code = "(id) => { const m = Review.app.model; return m.tagsOf(m.place.get(id)).map((c) => m.run.classes[c]); }"
    return set(page.evaluate(code, image))


def settle(page) -> None:
    """Two frames, in which work that waits for the next one is done."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def class_with_tags(page) -> int:
    return page.evaluate("""(() => { const m = Review.app.model; let best = 0;
        for (let c = 0; c < m.classes; c++) if (m.counts(c).tagged > m.counts(best).tagged) best = c;
        return best; })()""")


def save(page, folder):
    with page.expect_download() as download:
        page.keyboard.press("s")
    path = folder / "corrections.json"
    download.value.save_as(path)
    assert download.value.suggested_filename == "corrections.json"
    return path


def test_the_grid_shows_the_most_doubtful_first(made_run, visit):
    page = visit(made_run).page
    assert shown(page) == SCENES
    values = page.evaluate("Review.app.view.places.map((i) => Review.app.model.doubts[i])")
    assert values == sorted(values, reverse=True)
    assert page.locator(".card:visible").count() == SCENES
    for kind, wanted in (("photo", "every"), ("overlay", "some")):
        until(page, f"[...document.querySelectorAll('.card:not([hidden]) .{kind}')].{wanted}((c) => c.width > 100)")


def test_a_class_filters(made_run, visit):
    page = visit(made_run).page
    c = class_with_tags(page)
    row = page.locator(".class").nth(c)
    count = int(row.locator(".count").inner_text())
    row.locator(".class-name").click()
    assert shown(page) == count
    assert f"{count} of {SCENES} images" in page.locator("#shown").inner_text()
    page.get_by_role("button", name="Without", exact=True).click()
    assert shown(page) == SCENES - count
    page.locator("#clear-filters").click()
    assert shown(page) == SCENES


def test_filters_by_state_score_coverage_and_name(made_run, visit):
    page = visit(made_run).page
    page.keyboard.press("c")
    page.keyboard.press("x")
    for name, expected in (("Checked", 1), ("Rejected", 1), ("Unchecked", SCENES - 2), ("Failed", 0), ("Corrected", 0)):
        page.get_by_role("button", name=name, exact=True).and_(page.locator("#filters button")).click()
        assert shown(page) == expected
        page.locator("#clear-filters").click()
    field = page.get_by_label("Coverage in percent, at least")
    covered = page.evaluate("Array.from(Review.app.model.coverage)")
    field.fill("15")
    assert shown(page) == sum(value >= 1_500 for value in covered)
    page.locator("#clear-filters").click()
    assert field.input_value() == ""
    page.get_by_label("Score, at most").fill("0.5")
    best = page.evaluate("Array.from(Review.app.model.doubtInput.imageHigh, (level) => Review.app.model.value(level))")
    assert shown(page) == sum(value <= 0.5 for value in best)
    page.locator("#clear-filters").click()
    page.keyboard.press("/")
    page.keyboard.type("00003")
    settle(page)
    assert ids(page) == ["train_00003"]
    page.locator("#search").fill("no such file")
    settle(page)
    assert page.get_by_text("No image matches").is_visible()
    page.get_by_role("button", name="Clear the filters").click()
    assert shown(page) == SCENES


@pytest.mark.parametrize("order", ["name", "score", "coverage", "ignored", "random"])
def test_orders(made_run, visit, order):
    page = visit(made_run).page
    page.locator("#sort").select_option(order)
    first = ids(page)
    if order == "name":
        assert first == sorted(first)
    elif order in ("coverage", "ignored"):
        values = page.evaluate(f"Review.app.view.places.map((i) => Review.app.model.{order}[i])")
        assert values == sorted(values, reverse=True)
    elif order == "random":
        assert first != sorted(first)
        page.reload()
        page.locator("#sort").select_option(order)
        assert ids(page) == first
    page.get_by_role("button", name="Reverse the order").click()
    if order in ("name", "random"):
        assert ids(page) == first[::-1]
    assert sorted(ids(page)) == sorted(first)


def test_a_threshold_is_dragged_typed_and_reset(made_run, visit):
    page = visit(made_run).page
    c = class_with_tags(page)
    row = page.locator(".class").nth(c)
    before = {name: tags(page, name) for name in ids(page)}
    row.scroll_into_view_if_needed()
    box = row.locator(".handle").bounding_box()
    start = page.evaluate(f"Review.app.model.handles[{c}] / Review.app.model.highest")
    page.mouse.move(box["x"] + 5 + start * (box["width"] - 10), box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(1, 9):
        page.mouse.move(box["x"] + 5 + (start + step * (1 - start) / 8) * (box["width"] - 10), box["y"] + 10)
    page.mouse.up()
    settle(page)
    counts = page.evaluate(f"Review.app.model.counts({c})")
    assert counts["lost"] > 0
    assert row.locator(".delta").inner_text() == f"+{counts['gained']} −{counts['lost']}"
    assert int(row.locator(".count").inner_text()) == counts["tagged"]
    assert row.locator(".number").input_value() == str(page.evaluate(
        f"Number(Review.app.model.value(Review.app.model.handles[{c}]).toFixed(4))"))  # fmt: skip
    page.keyboard.press("z")  # one drag is one step
    assert {name: tags(page, name) for name in ids(page)} == before
    row.locator(".number").fill("0.01")
    row.locator(".number").press("Enter")
    settle(page)
    assert page.evaluate(f"Review.app.model.value(Review.app.model.handles[{c}])") == 0.01
    scores = {record.id: record.scores[c] for record in RunReader(made_run).records()}
    for name, score in scores.items():
        assert (NAMES[c] in tags(page, name)) == (score >= 0.01)
    row.get_by_role("button", name="Reset").click()
    settle(page)
    assert {name: tags(page, name) for name in ids(page)} == before
    assert row.locator(".delta").inner_text() == ""


def test_a_threshold_by_keyboard(made_run, visit):
    page = visit(made_run).page
    c = class_with_tags(page)
    page.locator(".class-name").nth(c).click()
    page.keyboard.press("t")
    before = page.evaluate(f"Review.app.model.handles[{c}]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    after = page.evaluate(f"Review.app.model.handles[{c}]")
    assert 0 < after - before < 0.05 * page.evaluate("Review.app.model.highest")
    words = page.locator(".handle").nth(c).get_attribute("aria-valuetext")
    assert str(page.evaluate(f"Review.app.model.value({after})")) in words


def test_tags_are_toggled_undone_and_done_again(made_run, visit):
    page = visit(made_run).page
    name = ids(page)[0]
    before = tags(page, name)
    chip = page.locator(".card.is-current .chip.is-on").first
    removed = NAMES[int(chip.get_attribute("data-class"))]
    chip.click()
    assert tags(page, name) == before - {removed}
    assert "1 corrected" in page.locator("#counts").inner_text()
    gone = page.locator(f".card.is-current [data-class='{NAMES.index(removed)}']")
    assert gone.locator(".dot:visible").count() == 1
    assert page.locator(".card:visible .dot:visible").count() == 1
    assert gone.get_attribute("aria-pressed") == "false"
    page.keyboard.press("z")
    assert tags(page, name) == before
    page.keyboard.press("Shift+Z")
    assert tags(page, name) == before - {removed}
    page.locator("#undo").click()
    page.keyboard.press("9")
    ninth = page.evaluate("Review.app.model.run.classes[Review.app.model.ranked(Review.app.grid.image)[8]]")
    assert tags(page, name) == before ^ {ninth}


def test_keys_move_check_and_reject(made_run, visit):
    page = visit(made_run).page
    order = ids(page)
    page.keyboard.press("c")
    assert page.evaluate("Review.app.model.ids[Review.app.grid.image]") == order[1]
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Review.app.model.ids[Review.app.grid.image]") == order[2]
    state = "(id) => Review.app.model.state(Review.app.model.place.get(id))"
    assert [page.evaluate(state, name) for name in order[:3]] == ["checked", "rejected", None]
    assert "1 checked" in page.locator("#counts").inner_text()
    assert ids(page) == order  # what is decided stays where it is
    page.get_by_role("button", name="Sort again").click()
    assert set(ids(page)[-2:]) == set(order[:2])
    modes = []
    for _ in range(4):
        page.keyboard.press("o")
        modes.append(page.evaluate("Review.app.settings.mode"))
    assert modes == ["outline", "maps", "none", "fill"]
    page.keyboard.press("?")
    assert page.locator("#about").is_visible()
    page.keyboard.press("Escape")


def test_one_image_at_a_time(made_run, visit):
    page = visit(made_run).page
    order = ids(page)
    page.keyboard.press("Enter")
    assert page.locator("#detail-name").inner_text() == order[0]
    until(page, "!Review.app.detail.photo.hidden && Review.app.detail.photo.naturalWidth > 320")
    assert page.locator(".remark").is_hidden()
    until(page, "Review.app.detail.canvas.width === Review.app.detail.width")  # the mask at its full size
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.evaluate("Review.app.detail.scale") == pytest.approx(1.96)
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 150)
    page.mouse.up()
    assert page.evaluate("Review.app.detail.y") == pytest.approx(-50)
    page.mouse.wheel(0, -300)
    assert page.evaluate("Review.app.detail.scale") > 2
    page.keyboard.press("0")
    assert page.evaluate("Review.app.detail.scale") == 1
    before = tags(page, order[0])
    row = page.locator(".scores .score").nth(4)
    name = NAMES[int(row.get_attribute("data-class"))]
    row.click()
    assert tags(page, order[0]) == before ^ {name}
    first = page.locator(".legend input").first
    first.uncheck()
    assert page.evaluate("Review.app.detail.hidden.size") == 1
    page.locator("#note").fill("looks odd")
    page.get_by_role("button", name="Next image").click()
    assert page.locator("#detail-name").inner_text() == order[1]
    assert page.evaluate("(id) => Review.app.model.note(Review.app.model.place.get(id))", order[0]) == "looks odd"
    assert page.locator("#note").input_value() == ""
    page.locator(".stage").focus()
    page.keyboard.press("c")
    assert page.locator("#detail-name").inner_text() == order[2]
    page.keyboard.press("k")
    page.keyboard.press("k")
    assert page.locator("#note").input_value() == "looks odd"
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    assert page.evaluate("document.activeElement.closest('.card').classList.contains('is-current')")


def test_focus_stays_in_the_dialog(made_run, visit):
    page = visit(made_run).page
    page.keyboard.press("Enter")
    for _ in range(60):
        page.keyboard.press("Tab")
        inside = page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
        assert inside


def test_maps_and_outlines_are_painted(made_run, visit):
    page = visit(made_run).page
    page.keyboard.press("Enter")
    painted = """() => { const c = Review.app.detail.canvas;
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / (c.width * c.height); }"""
    until(page, "Review.app.detail.canvas.width > 320")
    fill = page.evaluate(painted)
    page.keyboard.press("o")
    outline = page.evaluate(painted)
    page.keyboard.press("o")
    heat = page.evaluate(painted)
    page.keyboard.press("o")
    assert 0 < outline < fill < 1
    assert heat > 0.5
    assert page.evaluate("Review.app.detail.canvas.width") == 1


def test_the_label_map_is_the_mask(made_run, visit):
    page = visit(made_run).page
    reader = RunReader(made_run)
    for record in list(reader.records())[:3]:
        code = """async (id) => { const m = Review.app.model, i = m.place.get(id);
            const mask = await Review.overlays.full(m, i);
            return { height: mask.height, width: mask.width,
                     codes: Array.from(mask.values, (value) => mask.labels[value]) }; }"""
        found = page.evaluate(code, record.id)
        mask = reader.mask(record.id)
        assert (found["height"], found["width"]) == mask.shape
        assert [255 if code == -1 else code for code in found["codes"]] == mask.ravel().tolist()


def test_work_survives_a_reload_and_is_saved(made_run, visit, tmp_path):
    page = visit(made_run).page
    assert page.locator("#save").is_disabled()
    order, c = ids(page), class_with_tags(page)
    page.keyboard.press("5")
    page.keyboard.press("c")
    page.keyboard.press("x")
    page.locator(".number").nth(c).fill("0.3")
    page.locator(".number").nth(c).press("Enter")
    page.keyboard.press("Escape")
    page.locator("#help").click()
    page.locator("#by").fill("Anna")
    page.keyboard.press("Escape")
    expected = {name: tags(page, name) for name in order}
    # Leaving with unsaved work asks first.
    asked = []

    def answer(dialog):
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    page.reload()
    assert asked == ["beforeunload"]
    assert {name: tags(page, name) for name in order} == expected
    assert "1 checked" in page.locator("#counts").inner_text()
    assert page.evaluate(f"Review.app.model.moved[{c}]") == 1
    path = save(page, tmp_path)
    corrections = read_corrections(path)
    reader = RunReader(made_run)
    assert (corrections.run_id, corrections.manifest_sha256) == (reader.id, reader.manifest_sha256)
    assert corrections.by == "Anna"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", corrections.saved)
    assert corrections.thresholds == {NAMES[c]: 0.3}
    states = {name: said.state for name, said in corrections.images.items()}
    assert states == {order[0]: "checked", order[1]: "rejected"}
    # The command line gives the same tags as the page.
    for record in reader.records():
        assert set(corrected_tags(record, corrections, NAMES)) == expected[record.id]
    page.reload()
    assert asked == ["beforeunload"]  # saved: nothing to ask
    assert {name: tags(page, name) for name in order} == expected


def test_saved_corrections_become_masks_and_a_second_review_shows_them(made_run, visit, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(made_run, run)
    page = visit(run).page
    order = ids(page)
    expected = tags(page, order[0]) ^ {"sofa"}
    page.evaluate("Review.app.toggleTag(Review.app.model.index.get('sofa'), Review.app.view.places[0])")
    page.keyboard.press("c")
    page.keyboard.press("x")
    path = save(page, tmp_path)
    before = {mask: mask.stat().st_mtime_ns for mask in (run / "masks").rglob("*.png")}
    assert command("mask")(["--run", str(run), "--corrections", str(path), "--mask-workers", "1", "--quiet"]) == 0
    changed = {mask.stem for mask in (run / "masks").rglob("*.png") if mask.stat().st_mtime_ns != before.get(mask)}
    assert changed == {order[0]}
    records = {record.id: record for record in RunReader(run).records()}
    assert {NAMES[index] for index in records[order[0]].indices} == expected
    assert order[1] not in records
    assert [record.id for record in RunReader(run).rejected()] == [order[1]]
    assert command("review")(["--run", str(run), "--workers", "1", "--quiet"]) == 0
    page.reload()
    assert page.evaluate("Review.app.model.said.size") == 0  # what the run has taken over is no news
    assert page.locator("#save").is_disabled()
    for words in ("1 checked", "1 corrected", "1 rejected"):
        assert words in page.locator("#counts").inner_text()
    assert tags(page, order[0]) == expected
    page.evaluate("(id) => Review.app.detail.open(Review.app.model.place.get(id))", order[0])
    assert "Corrected before: " in page.locator("#detail").inner_text()
    # A rejection can be taken back with open eyes: the run has put the mask aside, and the page shows it.
    page.evaluate("(id) => Review.app.detail.open(Review.app.model.place.get(id))", order[1])
    until(page, "Review.app.detail.canvas.width === Review.app.detail.width")
    page.keyboard.press("x")
    assert page.evaluate("(id) => Review.app.model.state(Review.app.model.place.get(id))", order[1]) is None


def test_a_saved_file_continues_elsewhere(made_run, visit, tmp_path):
    first = visit(made_run).page
    first.keyboard.press("3")
    first.keyboard.press("c")
    path = save(first, tmp_path)
    second = visit(made_run).page
    second.locator("#help").click()
    second.locator("#load").set_input_files(path)
    until(second, "!document.getElementById('about').open")
    assert "1 checked" in second.locator("#counts").inner_text()
    name = ids(first)[0]
    assert tags(second, name) == tags(first, name)
    second.on("dialog", lambda dialog: dialog.accept())
    (tmp_path / "other.json").write_text("[]")
    second.locator("#help").click()
    second.locator("#load").set_input_files(tmp_path / "other.json")
    second.get_by_text("no corrections.json of this page").wait_for()


def test_charts_and_their_tables(made_run, visit):
    visited = visit(made_run)
    page = visited.page
    page.get_by_role("tab", name="Charts").click()
    titles = page.locator("#charts h2").all_inner_texts()
    assert titles == ["Tags per class", "Coverage per class", "Scores per class", "Classes that occur together",
                      "Ignored share", "Doubt over rank", "This run"]  # fmt: skip
    page.get_by_text("Tags per class as a table").click()
    rows = page.locator(".chart").first.locator("tbody tr")
    found = {row.split("\t")[0]: int(row.split("\t")[1]) for row in rows.all_inner_texts()}
    counted: dict[str, int] = {}
    for record in RunReader(made_run).records():
        for index in record.indices:
            counted[NAMES[index]] = counted.get(NAMES[index], 0) + 1
    assert found == counted
    shot(visited, "charts")


def test_python_gives_the_same_order(made_run, visit):
    page = visit(made_run).page
    for seed in range(12):
        case = doubt_case(seed)
        found = page.evaluate(PAGE_CODE, as_page_input(*case))
        assert found["values"] == doubts(*case).tolist()
        assert found["order"] == doubt_order(doubts(*case)).tolist()


def test_a_phone(made_run, visit):
    visited = visit(made_run, PHONE, has_touch=True, is_mobile=True)
    page = visited.page
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    assert page.evaluate("Review.app.grid.columns") == 2
    assert not page.locator("#rail").is_visible()
    page.locator("#open-rail").tap()
    assert page.locator(".class").first.is_visible()
    shot(visited, "phone-rail")
    page.locator("#close-rail").tap()
    page.locator(".card.is-current .picture").tap()
    assert page.locator("#detail").is_visible()
    assert page.evaluate("document.getElementById('detail').scrollWidth") == PHONE[0]
    shot(visited, "phone-detail")


def test_nothing_moves_while_the_page_settles(made_run, visit):
    page = visit(made_run).page
    page.wait_for_timeout(500)
    page.reload()
    code = """new Promise((done) => { let sum = 0;
        new PerformanceObserver((list) => { for (const entry of list.getEntries()) sum += entry.value; })
          .observe({ type: 'layout-shift', buffered: true });
        setTimeout(() => done(sum), 700); })"""
    assert page.evaluate(code) < 0.01


def test_no_motion_where_none_is_wanted(made_run, visit):
    calm = visit(made_run, PHONE, reduced_motion="reduce").page
    duration = "parseFloat(getComputedStyle(document.getElementById('rail')).transitionDuration)"
    assert calm.evaluate(duration) == 0
    assert 0 < visit(made_run, PHONE, reduced_motion="no-preference").page.evaluate(duration) <= 0.15


def test_light_and_dark(made_run, visit):
    page = visit(made_run, scheme="dark").page
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Light or dark").click()
    light = page.evaluate(background)
    assert dark != light
    page.reload()
    assert page.evaluate(background) == light
    page.get_by_role("button", name="Light or dark").click()
    page.emulate_media(color_scheme="light")  # the system's again
    assert page.evaluate(background) == light


def test_single_keys_can_be_turned_off(made_run, visit):
    page = visit(made_run).page
    page.locator("#help").click()
    page.locator("#single-keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    assert page.locator("#save").is_disabled()
    assert json.loads(page.evaluate("localStorage.getItem('tagclip-review')"))["keys"] is False

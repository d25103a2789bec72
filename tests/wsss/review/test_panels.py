"""Panels and sheets: titles whole, widths bounded, colours and scores explained."""

import numpy as np
import pytest
from PIL import ImageFont

from wsss.review import panels
from wsss.review.panels import GAP, PictureConfig, TagMaps, legend, mask_panel, panel_row, panel_size, strip, wrapped

LOOK = PictureConfig(height=100)
FONT = ImageFont.load_default(size=LOOK.font_size)
CAT, DOG = (200, 10, 20), (15, 220, 30)


def grey(height, width, value=90):
    return np.full((height, width, 3), value, np.uint8)


def holds(picture, colour):
    return bool((picture == np.array(colour, np.uint8)).all(-1).any())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((50, 100), (200, 100)),
        ((40, 6000), (400, 3)),  # a panorama: four times the height at most
        ((6000, 40), (1, 100)),
        ((1, 1), (100, 100)),
    ],
)
def test_fitted_size(shape, expected):
    assert panel_size(shape, LOOK) == expected


def test_a_panorama_gives_a_sheet_of_bounded_width():
    image = grey(40, 6000)
    maps = [TagMaps(name, np.zeros((3, 375)), np.zeros((3, 375)), 0.5, CAT) for name in "abcdef"]
    picture = strip(image, maps, image, "panorama", LOOK)
    assert picture.shape[1] == (2 + 2 * LOOK.max_tags) * 400 + (1 + 2 * LOOK.max_tags) * GAP


@pytest.mark.parametrize(
    "title",
    ["true mask: potted plant, dining table, motorbike, sheep", "photos/of/last/summer/IMG_20240101_000000_burst_01"],
)
def test_titles_are_whole(title):
    lines = wrapped(title, 100, FONT)
    assert "".join(lines).replace(" ", "") == title.replace(" ", "")
    assert len(lines) > 1
    assert all(FONT.getlength(line) <= 100 for line in lines)


def test_titles_take_the_room_that_the_longest_needs():
    short, long = [panel_row([("a", grey(100, 100)), (title, grey(100, 100))], LOOK) for title in ("b", "b " * 40)]
    assert short.shape[1] == long.shape[1] == 2 * 100 + GAP
    assert long.shape[0] > short.shape[0]
    # Images stand at the bottom, side by side.
    for row in (short, long):
        assert (row[-100:, :100] == 90).all()
        assert (row[-100:, -100:] == 90).all()


def test_the_legend_names_every_colour_once_within_its_width(monkeypatch):
    written = []
    draw = panels.ImageDraw.Draw

    class Recorder:
        def __init__(self, image):
            self.draw = draw(image)

        def text(self, place, text, **settings):
            written.append((place, text))
            self.draw.text(place, text, **settings)

    monkeypatch.setattr(panels.ImageDraw, "Draw", Recorder)
    entries = [("cat 0.83", CAT), ("dog", DOG)]
    wide, narrow = legend(entries, 600, LOOK, heat=True), legend(entries, 120, LOOK)
    assert [text for _, text in written] == [
        "cat 0.83", "dog", "ignored", "class map from 0 to 1", "cat 0.83", "dog", "ignored",
    ]  # fmt: skip
    assert {place[1] for place, _ in written[:3]} == {GAP - 1}  # one line
    assert narrow.shape[0] > wide.shape[0] // 2
    assert len({place[1] for place, _ in written[4:]}) > 1
    assert holds(wide, CAT)
    assert holds(wide, DOG)
    assert wide.shape[1] == 600
    assert max(place[0] + FONT.getlength(text) for place, text in written[4:]) <= 120


def test_a_strip_ends_with_its_legend():
    image = grey(100, 100)
    maps = [TagMaps("cat", None, np.zeros((6, 6)), 0.83, CAT)]
    picture = strip(image, maps, image, "a", LOOK)
    assert holds(picture, CAT)
    without = strip(image, [TagMaps("cat", None, np.zeros((6, 6)))], image, "a", LOOK)
    assert not holds(without, CAT)
    assert picture.shape[0] > without.shape[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hatching_is_as_wide_on_a_large_photo_as_on_a_small_one(dtype):
    ignored = np.iinfo(dtype).max
    palette = np.array([(0, 0, 0), CAT], np.uint8)
    for factor in (1, 10):
        mask = np.full((100 * factor, 100 * factor), ignored, dtype)
        panel = mask_panel(grey(*mask.shape), mask, palette, LOOK)
        assert panel.shape == (100, 100, 3)
        white = (panel == 255).all(-1)
        assert white[0, :8].tolist() == [True] * 3 + [False] * 5
        assert white.mean() == pytest.approx(3 / 8, abs=0.01)

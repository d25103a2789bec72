"""Levels decide like the scores, and handles reproduce the tags."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagclip.tag_files import TagRecord
from wsss.files.corrections import Corrections, corrected_tags
from wsss.review.score_levels import UNKNOWN, ScoreScale, class_handles

SCALES = [ScoreScale(), ScoreScale.of_scores(-3.2, 17.9), ScoreScale.of_scores(0, 30), ScoreScale.of_scores(-1e-3, 0)]


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_a_level_reaches_a_threshold_exactly_where_the_score_does(scale):
    rng = np.random.default_rng(0)
    low, high = scale.value(0), scale.value(scale.highest)
    thresholds = rng.integers(0, scale.highest + 1, 400)
    values = [np.float32(scale.value(int(level))) for level in thresholds]
    scores = np.concatenate([values, np.nextafter(values, np.float32(-9e9)), np.nextafter(values, np.float32(9e9)),
                             rng.uniform(low, high, 400)]).astype(np.float32).clip(low, high)  # fmt: skip
    levels = scale.levels(scores)
    for level in thresholds.tolist():
        assert ((levels >= level) == (scores >= np.float32(scale.value(level)))).all()


@given(st.floats(0, 1, width=32), st.integers(0, 50_000))
def test_the_command_line_decides_as_the_page(score, level):
    scale = ScoreScale()
    corrections = Corrections("run", thresholds={"cat": scale.value(level)})
    record = TagRecord("a", (), scores=np.array([score], np.float32))
    on_page = bool(scale.levels(np.float32(score)) >= level)
    assert (corrected_tags(record, corrections, ("cat",)) == ("cat",)) == on_page


def test_unknown_scores_have_a_level_of_their_own():
    assert ScoreScale().levels(np.array([np.nan, 0, 1], np.float32)).tolist() == [UNKNOWN, 0, 50_000]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-5, 5), (0, 100), (-1e6, 3), (0.2, 1.0001), (-1e-9, 1e-9)])
def test_every_scale_fits_into_16_bits_and_holds_its_scores(low, high):
    scale = ScoreScale.of_scores(low, high)
    assert scale.highest < UNKNOWN
    assert scale.value(0) <= low
    assert scale.value(scale.highest) >= high


def test_handles_reproduce_separable_tags_at_a_round_number():
    levels = np.array([[1_000], [2_000], [20_000], [30_000]], np.uint16)
    tags = np.array([[0], [0], [1], [1]], bool)
    (handle,) = class_handles(levels, tags)
    assert 2_000 < handle <= 20_000
    assert ScoreScale().value(int(handle)) == 0.22


def test_a_handle_errs_for_as_few_images_as_possible():
    rng = np.random.default_rng(3)
    levels = rng.integers(0, 200, (60, 4)).astype(np.uint16)
    tags = rng.random((60, 4)) < levels / 200
    handles = class_handles(levels, tags)
    for place in range(4):
        errors = [((levels[:, place] >= level) != tags[:, place]).sum() for level in range(201)]
        assert ((levels[:, place] >= handles[place]) != tags[:, place]).sum() == min(errors[1:] + errors[:1])


def test_a_class_without_tags_gets_a_handle_above_its_scores():
    levels = np.array([[100, 40_000, UNKNOWN], [20_000, 45_000, UNKNOWN]], np.uint16)
    tags = np.array([[False, False, False], [True, False, False]])
    handles = class_handles(levels, tags)
    assert handles[1] == 45_001
    assert handles[2] == 0

"""Tag rules and calibration."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tagclip.config import PRESETS, TagCLIPConfig, TagRuleConfig
from tagclip.errors import UsageError
from tagclip.thresholds import (
    CalibrationConfig,
    best_threshold,
    calibrate_with_labels,
    calibrate_without_labels,
    relative_scores,
    select,
    tag_margins,
)
from tagclip.vocabulary import Vocabulary
from tests.golden import golden_cases


@pytest.mark.parametrize("case", golden_cases("tag"), ids=str)
def test_relative_rule_gives_the_recorded_tags(case):
    recorded = case.arrays()
    rule = TagRuleConfig(threshold=0.1 if case.vocabulary == "cocostuff" else 0.5)
    assert np.flatnonzero(select(recorded["scores"][None], rule)[0]).tolist() == recorded["tags"].tolist()


SCORES = np.array([[0.1, 0.9, 0.6, 0.1], [0.2, 0.2, 0.2, 0.2], [0.0, 0.1, 0.3, 0.05]], dtype=np.float32)


PUBLISHED = TagRuleConfig(at_least_one=True, floor=None)
ABSOLUTE = TagRuleConfig(rule="absolute", threshold=0.25)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (PUBLISHED, [[1, 2], [0], [2]]),
        (replace(PUBLISHED, threshold=0.1), [[1, 2], [0], [1, 2, 3]]),
        (replace(PUBLISHED, at_least_one=False), [[1, 2], [], [2]]),
        (TagRuleConfig(), [[1, 2], [], [2]]),  # four classes have the floor 0.25
        (TagRuleConfig(threshold=0.1), [[1, 2], [], [2]]),
        (TagRuleConfig(floor=0.15), [[1, 2], [0, 1, 2, 3], [2]]),  # equal scores: half of the best is below all
        (TagRuleConfig(floor=0.25, at_least_one=True), [[1, 2], [0], [2]]),
        (TagRuleConfig(class_thresholds=(0.1, 0.9, 0.1, 0.1)), [[1, 2], [], [2]]),
        (ABSOLUTE, [[1, 2], [], [2]]),
        (replace(ABSOLUTE, at_least_one=True), [[1, 2], [0], [2]]),
        (replace(ABSOLUTE, floor=0.7), [[1], [], []]),
        (TagRuleConfig(rule="absolute", class_thresholds=(0.05, 0.95, 0.25, 0.2)), [[0, 2], [0], [2]]),
        (TagRuleConfig(rule="top_k", top_k=2), [[1, 2], [0, 1], [1, 2]]),
        (TagRuleConfig(rule="top_k", top_k=9), [[0, 1, 2, 3]] * 3),
        (TagRuleConfig(rule="top_k", top_k=2, floor=0.25), [[1, 2], [], [2]]),
        (TagRuleConfig(rule="top_k", top_k=2, floor=0.25, at_least_one=True), [[1, 2], [0], [2]]),
    ],
)
def test_rules(rule, expected):
    assert [np.flatnonzero(row).tolist() for row in select(SCORES, rule)] == expected


@given(arrays(np.float32, (3, 5), elements=st.floats(0, 1, width=32)))
def test_relative_rule_always_gives_a_tag_and_always_the_best_class(scores):
    chosen = select(scores, PUBLISHED)
    assert chosen[np.arange(3), scores.argmax(axis=1)].all()


@pytest.mark.parametrize(
    ("rule", "classes", "floor", "keeps_best"),
    [
        (TagRuleConfig(), 1, 0.25, False),
        (TagRuleConfig(), 9, 0.25, False),
        (TagRuleConfig(), 10, None, True),
        (TagRuleConfig(), 20, None, True),
        (TagRuleConfig(at_least_one=False), 20, 0.25, False),
        (TagRuleConfig(at_least_one=True), 1, None, True),
        (TagRuleConfig(floor=None), 1, None, True),
        (TagRuleConfig(floor=0.4), 20, 0.4, False),
        (TagRuleConfig(rule="absolute"), 1, None, False),
        (TagRuleConfig(rule="absolute", at_least_one=True), 1, None, True),
        (TagRuleConfig(rule="top_k"), 1, None, False),
    ],
)
def test_where_an_image_may_have_no_tag(rule, classes, floor, keeps_best):
    assert (rule.floor_for(classes), rule.keeps_best(classes)) == (floor, keeps_best)


@pytest.mark.parametrize("name", Vocabulary.built_in())
@pytest.mark.parametrize("preset", PRESETS)
def test_the_published_data_sets_have_the_published_rule(preset, name):
    classes = len(Vocabulary.named(name))
    rule = TagCLIPConfig.preset(preset).rule
    assert (rule.floor_for(classes), rule.keeps_best(classes)) == (None, True)
    assert TagCLIPConfig.preset("reference").rule.floor_for(1) is None


def test_one_class_is_a_tag_where_it_is_likely():
    scores = np.array([[0.9], [0.26], [0.25], [0.00003]], np.float32)
    assert select(scores, TagRuleConfig())[:, 0].tolist() == [True, True, False, False]
    assert select(scores, PUBLISHED).all()
    assert select(scores, TagRuleConfig(rule="absolute", threshold=0.3))[:, 0].tolist() == [True, False, False, False]


def test_of_two_classes_both_may_be_tags():
    scores = np.array([[0.8, 0.7], [0.8, 0.3]], np.float32)
    assert select(scores, TagRuleConfig()).tolist() == [[True, True], [True, False]]
    assert select(scores, PUBLISHED).tolist() == [[True, False], [True, False]]


RULES = [
    TagRuleConfig(floor=None), TagRuleConfig(), TagRuleConfig(threshold=0.3, floor=0.2),
    TagRuleConfig(floor=None, at_least_one=False), TagRuleConfig(class_thresholds=(0.2, 0.5, 0.4, 0.9, 0.3)),
    TagRuleConfig(rule="absolute", threshold=0.4, floor=None), TagRuleConfig(rule="absolute", threshold=0.1, floor=0.4),
    TagRuleConfig(rule="absolute", threshold=0.99, floor=None, at_least_one=True),
    TagRuleConfig(rule="top_k", top_k=2, floor=None), TagRuleConfig(rule="top_k", top_k=3, floor=0.5),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_margins_say_how_far_a_score_may_move(rule):
    """By less than the margin no tag changes; by more one does, unless the score sets the range of a relative rule."""
    scores = np.random.default_rng(3).random((60, 5))
    margins = tag_margins(scores, rule)
    assert (margins >= 0).all()
    for row, margin in zip(scores, margins, strict=True):
        free = {0, 1, 2, 3, 4} - ({int(row.argmax()), int(row.argmin())} if rule.rule == "relative" else set())
        changed = {}
        for place, step, share in itertools.product(free, (-1, 1), (0.99, 1.01)):
            moved = row.copy()
            moved[place] = np.clip(moved[place] + step * share * margin, row.min(), row.max()) if (
                rule.rule == "relative"
            ) else moved[place] + step * share * margin
            changed[place, step, share] = (select(moved[None], rule) != select(row[None], rule)).any()
        assert not any(found for (*_, share), found in changed.items() if share < 1)
        if rule.rule != "relative":
            assert any(changed.values())


def test_margins_of_z_scores_are_in_the_unit_of_scores():
    rng = np.random.default_rng(5)
    scores, scales = rng.random((40, 4)), np.column_stack([rng.normal(size=4) * 0.2, rng.random(4) + 0.5])
    rule = TagRuleConfig(rule="zscore", threshold=0.3, class_scales=tuple(map(tuple, scales)), at_least_one=False)
    margins = tag_margins(scores, replace(rule, floor=None))
    means, spreads = scores.mean(1, keepdims=True), scores.std(1, ddof=1, keepdims=True)
    borders = means + spreads * (0.3 * scales[:, 1] + scales[:, 0])  # scores whose z-score is the threshold
    np.testing.assert_allclose(margins, np.abs(scores - borders).min(1), rtol=1e-4)
    best = tag_margins(scores, replace(rule, floor=None, threshold=99.0, at_least_one=True))
    assert (best >= 0).all() and (best < tag_margins(scores, replace(rule, floor=None, threshold=99.0))).all()  # noqa: PT018


@pytest.mark.parametrize(
    ("rule", "scores", "expected"),
    [
        (TagRuleConfig(rule="top_k", top_k=3), [[0.5, 0.25]], np.inf),  # all classes, whatever they score
        (TagRuleConfig(rule="absolute", threshold=0.5, floor=None), [[0.75]], 0.25),
        (TagRuleConfig(rule="absolute", threshold=0.5, floor=None), [[0.5, 0.0]], 0.0),
        (TagRuleConfig(rule="relative", threshold=0.5, floor=None), [[0.0, 0.5, 1.0]], 0.0),
        (TagRuleConfig(rule="absolute", threshold=0.9, floor=None, at_least_one=True), [[0.5, 0.375, 0.0]], 0.125),
    ],
)
def test_margins_by_hand(rule, scores, expected):
    np.testing.assert_allclose(tag_margins(np.array(scores), rule), expected, atol=1e-6)


def test_calibration_of_few_classes_reads_scores_as_the_rule_does():
    scores, labels = two_groups()
    shares = scores / scores.max(axis=1, keepdims=True)
    for found, expected in (
        (calibrate_with_labels(scores, labels, TagRuleConfig()), calibrate_with_labels(shares, labels, ABSOLUTE)),
        (calibrate_without_labels(scores, TagRuleConfig()), calibrate_without_labels(shares, ABSOLUTE)),
    ):
        assert found.class_thresholds == pytest.approx(expected.class_thresholds)


@pytest.mark.parametrize("floor", [-0.1, 1.0])
def test_a_floor_out_of_range(floor):
    with pytest.raises(UsageError, match=r"rule\.floor"):
        TagRuleConfig(floor=floor)


def test_relative_scores_of_an_image_of_equal_scores_are_zero():
    assert relative_scores(np.full((1, 3), 0.4)).tolist() == [[0, 0, 0]]


def two_groups(seed=0, images=200):
    """Class 0 scores 0.9 or 0.1, class 1 0.35 or 0.05 (always low), class 2 is there in every image."""
    generator = np.random.default_rng(seed)
    labels = generator.random((images, 3)) < np.array([0.3, 0.3, 1.1])
    scores = np.where(labels, [0.9, 0.35, 1.0], [0.1, 0.05, 1.0]) + generator.normal(0, 0.01, (images, 3))
    return np.concatenate([scores, np.zeros((images, 1))], axis=1), np.concatenate(
        [labels, labels[:, :1] & False], axis=1
    )


def test_calibration_without_labels_brings_back_a_class_that_always_scores_low():
    scores, labels = two_groups()
    rule = TagRuleConfig(rule="absolute", threshold=0.5)
    calibrated = calibrate_without_labels(scores, rule, CalibrationConfig(floor=0.15, ceiling=0.5))
    assert (select(scores, rule)[:, 1] & labels[:, 1]).sum() == 0
    np.testing.assert_array_equal(select(scores, calibrated)[:, :2], labels[:, :2])
    assert all(0.15 <= value <= 0.5 for value in calibrated.class_thresholds)


# The separation n1 n2 (m2 - m1)^2 of each split, by hand.
BY_HAND = [
    # splits after 1, 2, 3, 4: 4 * .31^2 = .3844, 6 * .2467^2 = .3651, 6 * .27^2 = .4374, 4 * .225^2 = .2025
    ([0.20, 0.40, 0.42, 0.60, 0.62], 0.51),
    # 3 * .3333^2 = .3333, 4 * .4^2 = .64, 3 * .6^2 = 1.08
    ([0.1, 0.2, 0.3, 0.8], 0.55),
    # 3 * .6^2 = 1.08, 4 * .4^2 = .64, 3 * .3333^2 = .3333: the outlier is below
    ([0.2, 0.7, 0.8, 0.9], 0.45),
    # 2 * .35^2 = .245, 2 * .35^2 = .245: of equal splits the lower one
    ([0.4, 0.6, 0.9], 0.75),
    ([0.3, 0.5], 0.4),
]


@pytest.mark.parametrize(("column", "threshold"), BY_HAND)
def test_otsu_s_criterion_by_hand(column, threshold):
    shuffled = np.random.default_rng(0).permutation(column)[:, None]
    rule = TagRuleConfig(rule="absolute")
    calibrated = calibrate_without_labels(shuffled, rule, CalibrationConfig(floor=0, ceiling=1))
    assert calibrated.class_thresholds == pytest.approx((threshold,))
    assert calibrated.rule == "absolute"


@given(arrays(np.float64, (7, 3), elements=st.integers(0, 1000).map(lambda value: value / 1000)))
def test_otsu_s_threshold_leaves_the_least_spread_within_both_groups(scores):
    """The same criterion from its other side: the largest separation is the smallest sum of squares inside."""
    rule = TagRuleConfig(rule="absolute")
    found = calibrate_without_labels(scores, rule, CalibrationConfig(floor=0, ceiling=1)).class_thresholds

    def spread(values, threshold):
        groups = values[values <= threshold], values[values > threshold]
        return sum(((group - group.mean()) ** 2).sum() for group in groups if len(group))

    for values, threshold in zip(scores.T, found, strict=True):
        cuts = [(low + high) / 2 for low, high in itertools.pairwise(np.unique(values))]
        assert spread(values, threshold) <= min((spread(values, cut) for cut in cuts), default=0) + 1e-12


@pytest.mark.parametrize(("floor", "ceiling", "threshold"), [(0.6, 0.9, 0.6), (0.0, 0.5, 0.5), (0.0, 1.0, 0.55)])
def test_thresholds_stay_between_floor_and_ceiling(floor, ceiling, threshold):
    scores = np.array([[0.1], [0.2], [0.3], [0.8]])
    config = CalibrationConfig(floor=floor, ceiling=ceiling)
    calibrated = calibrate_without_labels(scores, TagRuleConfig(rule="absolute"), config)
    assert calibrated.class_thresholds == pytest.approx((threshold,))


@pytest.mark.parametrize(
    ("floor", "threshold"),
    [
        (None, 0.3),  # as the rule reads it: .5, .8, .1; splits: 2 * .55^2 = .605, 2 * .5^2 = .5
        (0.25, 0.65),  # .5, .8, .357; splits: 2 * .293^2 = .172, 2 * .371^2 = .276
    ],
)
def test_calibration_reads_scores_as_its_rule_does(floor, threshold):
    """The relative rule sees each image between its own lowest score, or 0 with a floor, and its highest."""
    scores = np.array([[0.0, 0.1, 0.2], [0.0, 0.4, 0.5], [0.2, 0.25, 0.7]])
    config = CalibrationConfig(floor=0, ceiling=1)
    rule = TagRuleConfig(rule="relative", floor=floor)
    assert calibrate_without_labels(scores, rule, config).class_thresholds[1] == pytest.approx(threshold)
    assert calibrate_without_labels(scores, TagRuleConfig(rule="absolute"), config).class_thresholds[1] == 0.325


def test_calibration_with_labels_finds_each_class_s_threshold():
    scores, labels = two_groups()
    rule = TagRuleConfig(rule="absolute", threshold=0.5)
    calibrated = calibrate_with_labels(scores[:60], labels[:60], rule, CalibrationConfig(prior=0))
    np.testing.assert_array_equal(select(scores, calibrated)[:, :3], labels[:, :3])


def test_calibration_draws_rare_classes_to_the_common_threshold():
    scores, labels = two_groups()
    rule = TagRuleConfig(rule="absolute")
    strong = calibrate_with_labels(scores, labels, rule, CalibrationConfig(prior=1e9)).class_thresholds
    assert np.ptp(strong) < 1e-5
    assert calibrate_with_labels(scores, labels, rule).class_thresholds[3] == pytest.approx(strong[3], abs=1e-5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=12))
def test_best_threshold_beats_every_cut(pairs):
    values = np.array([value for value, _ in pairs])
    labels = np.array([label for _, label in pairs])
    if not labels.any():
        labels[0] = True

    def f1(threshold):
        chosen = values > threshold
        return 2 * (chosen & labels).sum() / (chosen.sum() + labels.sum())

    cuts = [values.min() - 1, *values]
    # Halfway between two values that are next to each other in floating point is one of them.
    if np.diff(np.unique(values), prepend=-1).min() > 1e-9:
        assert f1(best_threshold(values, labels)) >= max(f1(cut) for cut in cuts) - 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: select(SCORES, TagRuleConfig(class_thresholds=(0.5,))), "1 class thresholds for 4 classes"),
        (lambda: select(SCORES[0], TagRuleConfig()), "expected"),
        (lambda: calibrate_without_labels(SCORES[:1], TagRuleConfig()), "at least 2 images"),
        (lambda: calibrate_without_labels(SCORES, TagRuleConfig(rule="top_k")), "top_k"),
        (lambda: calibrate_with_labels(SCORES, SCORES > 1, TagRuleConfig()), "no positive label"),
        (lambda: calibrate_with_labels(SCORES, SCORES[:, :2] > 0, TagRuleConfig()), "labels of shape"),
        (lambda: TagRuleConfig(top_k=0), "top_k"),
        (lambda: CalibrationConfig(floor=0.9), "floor"),
    ],
)
def test_wrong_use_is_named(call, message):
    with pytest.raises(UsageError, match=message):
        call()

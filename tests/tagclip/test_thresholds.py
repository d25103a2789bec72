"""Tag rules and calibration."""

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

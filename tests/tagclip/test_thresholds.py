"""Tag rules and calibration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tagclip.config import TagRuleConfig
from tagclip.errors import UsageError
from tagclip.thresholds import (
    CalibrationConfig,
    best_threshold,
    calibrate_with_labels,
    calibrate_without_labels,
    relative_scores,
    select,
)
from tests.golden import golden_cases


@pytest.mark.parametrize("case", golden_cases("tag"), ids=str)
def test_relative_rule_gives_the_recorded_tags(case):
    recorded = case.arrays()
    rule = TagRuleConfig(threshold=0.1 if case.vocabulary == "cocostuff" else 0.5)
    assert np.flatnonzero(select(recorded["scores"][None], rule)[0]).tolist() == recorded["tags"].tolist()


SCORES = np.array([[0.1, 0.9, 0.6, 0.1], [0.2, 0.2, 0.2, 0.2], [0.0, 0.1, 0.3, 0.05]], dtype=np.float32)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (TagRuleConfig(), [[1, 2], [0], [2]]),
        (TagRuleConfig(threshold=0.1), [[1, 2], [0], [1, 2, 3]]),
        (TagRuleConfig(rule="absolute", threshold=0.25), [[1, 2], [0], [2]]),
        (TagRuleConfig(rule="absolute", threshold=0.25, at_least_one=False), [[1, 2], [], [2]]),
        (TagRuleConfig(rule="absolute", class_thresholds=(0.05, 0.95, 0.25, 0.2)), [[0, 2], [0], [2]]),
        (TagRuleConfig(rule="top_k", top_k=2), [[1, 2], [0, 1], [1, 2]]),
        (TagRuleConfig(rule="top_k", top_k=9), [[0, 1, 2, 3]] * 3),
    ],
)
def test_rules(rule, expected):
    assert [np.flatnonzero(row).tolist() for row in select(SCORES, rule)] == expected


@given(arrays(np.float32, (3, 5), elements=st.floats(0, 1, width=32)))
def test_relative_rule_always_gives_a_tag_and_always_the_best_class(scores):
    chosen = select(scores, TagRuleConfig())
    assert chosen[np.arange(3), scores.argmax(axis=1)].all()


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

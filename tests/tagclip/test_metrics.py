"""Metrics against figures worked out by hand and the definition written out."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from tagclip.metrics import average_precision, measure_tags

NAMES = ("a", "b", "c")
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
TAGS = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], bool)


def definition(scores, labels):
    """AP = sum(precision at each positive) / number of positives."""
    hits = labels[np.argsort(-scores)]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    return precision[hits].sum() / hits.sum()


def test_average_precision_is_the_published_definition():
    rng = np.random.default_rng(0)
    for positives in (1, 3, 17, 40):
        scores, labels = rng.permutation(40) / 40, np.arange(40) < positives
        assert average_precision(scores, labels) == pytest.approx(definition(scores, labels), abs=1e-12)


def test_average_precision_of_ties_does_not_depend_on_order():
    scores, labels = np.array([0.5, 0.5, 0.2]), np.array([True, False, False])
    assert average_precision(scores, labels) == average_precision(scores[[1, 0, 2]], labels[[1, 0, 2]]) == 0.5


def test_decisions_by_hand():
    metrics = measure_tags(LABELS, TAGS, None, NAMES)
    assert (metrics.micro.precision, metrics.micro.recall) == (3 / 5, 3 / 4)
    assert metrics.micro.f1 == pytest.approx(2 / 3)
    # a: P 1 R 1; b: P 1/2 R 1/2; c has no positive and is left out.
    assert (metrics.macro.precision, metrics.macro.recall, metrics.macro.f1) == (0.75, 0.75, 0.75)
    # Images: 1/2 1; 1 1/2; 1 1; 0 0.
    assert (metrics.samples.precision, metrics.samples.recall) == (2.5 / 4, 2.5 / 4)
    assert metrics.samples.f1 == pytest.approx((2 / 3 + 2 / 3 + 1 + 0) / 4)
    assert metrics.mean_ap is None
    assert [(row.positives, row.tagged) for row in metrics.classes] == [(2, 2), (2, 2), (0, 1)]


@pytest.mark.parametrize("average", ["micro", "macro", "samples"])
def test_decisions_agree_with_scikit_learn(average):
    rng = np.random.default_rng(1)
    labels, tags = rng.random((2, 50, 7)) > 0.7
    expected = precision_recall_fscore_support(labels, tags, average=average, zero_division=0)[:3]
    found = getattr(measure_tags(labels, tags, None, tuple("abcdefg")), average)
    assert (found.precision, found.recall, found.f1) == pytest.approx(expected, abs=1e-12)


def test_classes_without_positives():
    scores = np.array([[0.9, 0.1, 0.3], [0.8, 0.7, 0.2], [0.1, 0.6, 0.1], [0.2, 0.2, 0.4]])
    left_out = measure_tags(LABELS, TAGS, scores, NAMES)
    zero = measure_tags(LABELS, TAGS, scores, NAMES, absent="zero")
    assert left_out.mean_ap == 1
    assert zero.mean_ap == pytest.approx(2 / 3)
    assert zero.macro.f1 == pytest.approx(0.5)
    assert zero.micro == left_out.micro
    assert [row.ap for row in left_out.classes] == [1, 1, None]


def test_scores_that_were_not_kept_rank_last():
    labels = np.array([[True], [False], [True]])
    scores = np.array([[0.2], [0.1], [np.nan]])
    assert measure_tags(labels, labels, scores, ("a",)).mean_ap == pytest.approx((1 + 2 / 3) / 2)


def test_table_and_dict():
    metrics = measure_tags(LABELS, TAGS, TAGS.astype(float), NAMES)
    table = metrics.table(classes=True)
    assert "micro                   0.600  0.750  0.667" in table
    assert table.count("\n") == 10
    assert metrics.to_dict()["classes"][2]["ap"] is None
    assert metrics.to_dict()["micro"]["precision"] == 0.6

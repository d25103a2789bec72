"""The scenes and the figures of the measurement of "nothing here"."""

import numpy as np
import pytest

from tagclip.clip import load_clip
from tagclip.config import TagRuleConfig
from tagclip.errors import UsageError
from wsss.demo.few_classes import RuleRow, SceneSettings, measure, rule_row, rules_table, scenes


def test_every_second_scene_shows_none_of_the_classes():
    classes = ["cat", "bus"]
    drawn = list(scenes(classes, SceneSettings(count=8, seed=3)))
    assert [bool(found) for _, found in drawn] == [True, False] * 4
    assert {index for _, found in drawn for index in found} <= {0, 1}
    again = list(scenes(classes, SceneSettings(count=8, seed=3)))
    for (one, found), (other, expected) in zip(drawn, again, strict=True):
        assert found == expected
        assert np.array_equal(one, other)


def test_figures_by_hand():
    truth = np.array([[1, 0], [0, 0], [0, 1], [0, 0]], bool)
    chosen = np.array([[1, 1], [0, 0], [0, 0], [1, 0]], bool)
    row = rule_row("mine", chosen, truth, chosen.astype(float), ["cat", "bus"])
    assert (row.classes, row.rule) == (2, "mine")
    assert (row.precision, row.recall) == (0.5, 0.5)  # two said to be empty, one of them rightly, of two that are
    assert row.f1 == pytest.approx(2 * 1 / (3 + 2))
    always = rule_row("all", np.ones_like(truth), truth, chosen.astype(float), ["cat", "bus"])
    assert np.isnan(always.precision)
    assert always.recall == 0
    lines = rules_table([row, always]).splitlines()
    assert lines[2:] == ["| 2 | mine | 50 | 50 | 40.0 |", "| 2 | all | - | 0 | 40.0 |"]


def test_the_published_rule_tags_every_scene_and_a_floor_need_not():
    rules = {"published": TagRuleConfig(floor=None), "never": TagRuleConfig(floor=0.999)}
    done = []
    rows = measure(load_clip("demo"), SceneSettings(count=2), lists=[("dog",)], rules=rules, progress=done.append)
    assert done == [1, 1]
    assert [(row.rule, row.recall, row.f1) for row in rows] == [("published", 0, pytest.approx(2 / 3)), ("never", 1, 0)]
    assert isinstance(rows[0], RuleRow)


def test_too_few_scenes():
    with pytest.raises(UsageError, match="count 1"):
        SceneSettings(count=1)

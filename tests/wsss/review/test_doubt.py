"""The doubt of an image: what raises it, and that the page's code gives the same numbers in the same order."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.wsss.review.doubt_cases import PAGE_CODE, as_page_input, doubt_case
from wsss.review.doubt import DoubtInput, DoubtRule, DoubtWeights, doubt_order, doubts, margins
from wsss.review.score_levels import UNKNOWN

ASSETS = Path(__file__).parents[3] / "wsss" / "review" / "assets"
SEEDS = range(12)


def images(levels, tags, **others) -> DoubtInput:
    levels = np.array(levels, np.uint16)
    count = len(levels)
    given = {"decided": np.zeros(levels.shape, bool), "settled": np.zeros(count, bool), "ignored": np.zeros(count, int)}
    return DoubtInput(levels, np.array(tags, bool), **{**given, "rivals": [()] * count, **others})


RULE = DoubtRule(np.array([100]), np.array([True]))
FOUR = images([[0], [90], [110], [200]], [[0], [0], [1], [1]])


def test_the_nearer_the_threshold_the_more_doubtful():
    assert doubts(FOUR, RULE).tolist() == pytest.approx([0, 0.9, 0.9, 0])
    assert doubt_order(doubts(FOUR, RULE)).tolist() == [1, 2, 0, 3]


def test_a_tag_on_the_wrong_side_is_as_doubtful_as_can_be():
    wrong = replace(FOUR, tags=np.array([[True], [False], [False], [True]]))
    assert doubts(wrong, RULE).tolist() == pytest.approx([1, 0.9, 1, 0])


def test_what_a_person_decided_is_not_doubtful():
    assert doubts(replace(FOUR, decided=np.ones((4, 1), bool)), RULE).tolist() == [0, 0, 0, 0]
    settled = replace(FOUR, settled=np.array([False, True, False, False]), ignored=np.full(4, 10_000))
    assert doubts(settled, RULE).tolist() == pytest.approx([0.5, 0, 0.95, 0.5])


def test_ignored_pixels_and_rivals_add():
    rivals = [(), (), ((0, 0, 5_000),), ()]
    values = doubts(replace(FOUR, ignored=np.array([0, 5_000, 0, 0]), rivals=rivals), RULE)
    assert values[1] == pytest.approx(1 - 0.1 * 0.75)
    assert values[2] == pytest.approx(1 - 0.1 * 0.75)
    none = doubts(replace(FOUR, ignored=np.array([0, 5_000, 0, 0]), rivals=rivals), RULE, DoubtWeights(0, 0))
    assert none.tolist() == pytest.approx([0, 0.9, 0.9, 0])


def test_rivals_count_only_while_both_are_tags():
    two = images([[200, 200]], [[1, 0]], rivals=[((0, 1, 10_000),)])
    rule = DoubtRule(np.array([100, 201]), np.array([True, True]))
    both = replace(two, tags=np.array([[True, True]]), decided=np.array([[True, True]]))
    assert doubts(replace(both, tags=np.array([[True, False]])), rule)[0] == 0
    assert doubts(both, rule)[0] == pytest.approx(0.5)


def test_a_relative_rule_gives_each_image_its_own_threshold():
    two = images([[10, 0], [100, 0]], [[1, 0], [1, 0]])
    rule = DoubtRule(np.array([50, 50]), np.array([False, False]), np.array([0.5, 0.5]))
    assert margins(two, rule)[:, 0].tolist() == pytest.approx([1 - 5 / 95, 0])
    moved = replace(rule, moved=np.array([True, False]))
    assert margins(two, moved)[:, 0].tolist() == pytest.approx([1, 0])  # 10 is below 50, and has the tag


def test_unknown_scores_have_no_part():
    assert doubts(images([[UNKNOWN]], [[1]]), RULE).tolist() == [0]


def test_ties_keep_the_order_of_the_run():
    assert doubt_order(np.array([0.5, 1, 0.5, 1])).tolist() == [1, 3, 0, 2]


@pytest.mark.skipif(shutil.which("node") is None, reason="no node; tools/test_browser.sh runs the same in a browser")
def test_the_page_gives_the_same_numbers_and_order(tmp_path):
    cases = [doubt_case(seed) for seed in SEEDS]
    (tmp_path / "cases.json").write_text(json.dumps([as_page_input(*case) for case in cases]))
    script = f"""
      const fs = require("fs"), vm = require("vm");
      vm.runInThisContext(fs.readFileSync({json.dumps(str(ASSETS / "doubt.js"))}, "utf8"));
      const work = {PAGE_CODE};
      console.log(JSON.stringify(JSON.parse(fs.readFileSync("cases.json")).map(work)));
    """
    done = subprocess.run(["node", "-e", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for case, page in zip(cases, json.loads(done.stdout), strict=True):
        values = doubts(*case)
        assert page["values"] == values.tolist()
        assert page["again"] == values.tolist()
        assert page["order"] == doubt_order(values).tolist()
        assert len(set(values.tolist())) > 50

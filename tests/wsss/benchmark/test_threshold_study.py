"""Tag rules measured on scores made by hand, and the whole study on a few drawn scenes."""

import json

import numpy as np
import pytest

from tagclip.clip import load_clip
from tagclip.vocabulary import Vocabulary
from wsss.benchmark.threshold_study import (
    FIXED_RULES,
    LABELLED,
    POWERS,
    FalseTagRow,
    crowded_scenes,
    false_tags_text,
    main,
    rules_text,
    study_false_tags,
    study_rules,
)  # fmt: skip


def test_rules_on_scores_that_tell_the_truth():
    """Scores of 0.6 where a class is, 0.02 where it is not: every rule that finds its threshold itself is right."""
    rng = np.random.default_rng(3)
    truth = rng.random((80, 4)) < 0.4
    truth[:, 0] |= ~truth.any(axis=1)  # each scene shows something
    scores = np.where(truth, 0.6, 0.02).astype(np.float32) + rng.random((80, 4), np.float32) / 100
    rows = {row.rule: row for row in study_rules("made", scores, truth, Vocabulary(["a", "b", "c", "d"]))}
    assert set(FIXED_RULES) < set(rows)
    for rule in ("absolute 0.25", "distribution", "class-zscore", *(f"{n} labelled images" for n in LABELLED)):
        assert rows[rule].f1 == pytest.approx(1), rule
        assert np.isnan(rows[rule].empty)
    assert rows["absolute 0.25"].mean_ap == pytest.approx(1)
    half, twice = rows["prevalence, half the true share"], rows["prevalence, twice the true share"]
    assert (half.precision, twice.recall) == (1, 1)
    assert max(half.recall, twice.precision) < 0.6
    assert rows["top 3"].precision == pytest.approx(truth[40:].sum() / 120, abs=0.05)
    assert rows_text_has(rows["absolute 0.25"])


def rows_text_has(row) -> bool:
    return "| made | absolute 0.25 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | - |" in rules_text([row])


def test_scenes_without_any_class_are_counted():
    truth = np.array([[True, False, False], [False, False, False]] * 20)
    scores = np.where(truth, 0.9, 0.1).astype(np.float32) + np.random.default_rng(0).random((40, 3), np.float32) / 100
    rows = {row.rule: row for row in study_rules("made", scores, truth, Vocabulary(["a", "b", "c"]))}
    assert rows["absolute 0.25"].empty == 1
    assert rows["relative 0.5 (published)"].empty == 0  # at least one tag per image


def test_crowded_scenes_say_what_they_show():
    names = list(Vocabulary.named("voc").names)
    (image, found), again = next(crowded_scenes(names, 1, 5)), next(crowded_scenes(names, 1, 5))
    assert image.ndim == 3
    assert found == sorted(set(found))
    assert np.array_equal(image, again[0])
    assert found == again[1]


def test_false_tags_cost_masks():
    done = []
    rows = study_false_tags(load_clip("demo"), 3, 11, lambda: done.append(1))
    assert [row.power for row in rows] == list(POWERS)
    assert len(done) == 3
    plain = rows[0]
    assert 0 < plain.with_false < plain.true_tags < 1
    # The higher the power, the less a false tag of low score changes.
    assert rows[-1].true_tags - rows[-1].with_false < plain.true_tags - plain.with_false


def test_the_study_keeps_scores_and_writes_figures(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--count", "6", "--masks", "0"]
    assert main(arguments) == 0
    first = (tmp_path / "figures.json").read_bytes()
    assert len(list(tmp_path.glob("scores-*-6-11.npz"))) == 2
    printed = capsys.readouterr().out
    assert "10 scenes" in printed
    assert main(arguments) == 0
    assert "10 scenes" not in capsys.readouterr().out  # from the scores that are there
    assert (tmp_path / "figures.json").read_bytes() == first
    figures = json.loads(first)
    assert {row["scenes"] for row in figures["rules"]} == {"2 to 8 objects", "half show nothing"}
    assert "false_tags" not in figures
    assert "| 0.5 | 50.0 | 25.0 |" in false_tags_text([FalseTagRow(0.5, 0.5, 0.25)])

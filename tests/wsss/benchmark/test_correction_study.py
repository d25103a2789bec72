"""What corrections are worth: the arithmetic on figures made by hand, and the whole study on a few drawn scenes."""

import json

import numpy as np
import pytest

from tagclip.labels import read_labels
from wsss.benchmark.correction_study import Study, corrections_of, main, tag_rows, worth_rows, worth_text
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer
from wsss.files.run_reader import RunReader

TRUE = np.array([[0, 1], [0, 1]], np.uint8)
WRONG = np.array([[0, 2], [0, 2]], np.uint8)


@pytest.fixture
def found() -> Study:
    """Four images of class 0; the first two were taken for class 1, and their masks with them."""
    scorer = MaskScorer(MaskEvaluationConfig(boundary_width=0.0))
    right, wrong = scorer.measure(TRUE, TRUE), scorer.measure(WRONG, TRUE)
    truth = {name: {0} for name in "abcd"}
    before = {"a": {1}, "b": {1}, "c": {0}, "d": {0}}
    masks = {name: (wrong if name in "ab" else right, right) for name in "abcd"}
    return Study(truth, before, masks, ("background", "cat", "dog"))


def test_figures_before_and_after(found):
    assert found.figures(()) == pytest.approx((0.5, (1 + 0.5 + 0) / 3))
    assert found.figures("a") == pytest.approx((0.75, (1 + 0.75 + 0) / 3))
    assert found.figures("cd") == pytest.approx(found.figures(()))
    f1, miou = found.figures("abcd")
    assert (f1, miou) == pytest.approx((1, 1))
    assert (found.wrong("ab"), found.wrong("ac"), found.wrong("cd")) == (2, 1, 0)


def test_rows_by_doubt_and_at_random(found):
    nothing, best, some, everything = worth_rows(found, ["a", "b", "c", "d"], [0.5], draws=200, seed=1)
    assert (nothing.f1, best.f1, everything.f1) == pytest.approx((0.5, 1, 1))
    assert (best.wrong_tags, everything.wrong_tags) == (2, 1)
    # Of two images out of four, one is wrong on average: F1 is 0.5, 0.75 or 1, in 1, 4 or 1 of 6 choices.
    assert some.f1 == pytest.approx(0.75, abs=0.03)
    assert some.f1_spread == pytest.approx(0.25 / 3**0.5, abs=0.03)
    assert some.wrong_tags == pytest.approx(1, abs=0.15)
    assert nothing.miou < some.miou < best.miou
    assert some.miou_spread > 0
    text = worth_text([nothing, best, some])
    assert "| most doubtful | 50 % | 2.00 | 100.0 | 100.0 |" in text
    assert text.count(" ± ") == 2


def test_doubtful_images_are_corrected_first():
    # Two classes; images 0 to 4 have the second class just missed, wrongly; the others are clear and right.
    scores = np.array([[0.9, 0.13]] * 5 + [[0.9, 0.001]] * 15, np.float32)
    truth = np.array([[True, True]] * 5 + [[True, False]] * 15)
    nothing, best, some, most = tag_rows(scores, truth, [0.25], draws=40, seed=0)
    assert nothing.f1 == pytest.approx(2 * 20 / (20 + 25))
    assert (best.f1, most.f1) == (1, 1)
    assert nothing.f1 < some.f1 < 1
    assert (best.wrong_tags, best.chosen, most.chosen) == (1, "most doubtful", "most wrong (an oracle)")
    assert np.isnan(best.miou)
    assert "| most doubtful | 25 % | 1.00 | 100.0 | - |" in worth_text([best])


def test_scores_from_files(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "scores.npz", scores=rng.random((20, 3), np.float32), truth=rng.random((20, 3)) < 0.4)
    assert main(["--scores", str(tmp_path / "scores.npz"), "--draws", "3", "--shares", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("scores.npz\n")
    assert printed.count("| 10 % |") == 3


def test_the_study_with_masks(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--count", "3", "--draws", "2", "--shares", "0.34", "0.67"]
    assert main(arguments) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert [row["chosen"] for row in rows] == [
        "nothing", "most doubtful", "at random", "most doubtful", "at random", "everything"
    ]  # fmt: skip
    assert rows[0]["f1"] < rows[-1]["f1"] == 1
    assert all(0 < row["miou"] < 1 for row in rows)
    assert "| everything | 100 % |" in capsys.readouterr().out
    # The corrected twin has the true tags: the truth finds nothing to correct in it.
    reader = RunReader(tmp_path / "corrected")
    labels = {record.id: record.indices for record in reader.records()}
    assert len(labels) == 3
    truth = read_labels(tmp_path / "scenes" / "train_labels.txt", reader.vocabulary, ids="index")
    assert labels == {name: tuple(sorted(tags)) for name, tags in truth.items()}
    said = corrections_of(tmp_path / "run", truth, {"train_00001"}).images
    assert list(said) == ["train_00001"]

"""Bootstrap intervals: right for a figure with a known spread, and of the same figure as the evaluation."""

import numpy as np
import pytest

from tagclip.metrics import measure_tags
from tagclip.vocabulary import Vocabulary
from wsss.evaluation.scorer import MaskScorer
from wsss.evaluation.tag_scores import TagScores
from wsss.files.mask_files import encode_mask
from wsss.reproduction import intervals
from wsss.reproduction.intervals import bootstrap, mask_interval, tag_interval

VOCABULARY = Vocabulary(["cat", "dog"])


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(3).normal(5, 2, 400)
    low, high = bootstrap(lambda rows: float(values[rows].mean()), len(values))
    spread = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - spread, abs=0.05)
    assert high == pytest.approx(values.mean() + spread, abs=0.05)


def test_figures_without_a_value_have_no_interval():
    assert np.isnan(bootstrap(lambda rows: float("nan"), 5)).all()


def test_equal_images_have_an_interval_without_width(tmp_path):
    truth = np.zeros((8, 8), np.uint8)
    truth[:4] = 1
    truth[0] = 255
    mask = truth.copy()
    mask[:, :2] = 2
    mask[7, 7] = 255
    for folder, values in (("predicted", mask), ("truth", truth)):
        (tmp_path / folder).mkdir()
        for name in ("a", "b", "c"):
            (tmp_path / folder / f"{name}.png").write_bytes(encode_mask(values, VOCABULARY.label_palette))
    scorer = MaskScorer()
    scorer.update(mask, truth)
    expected = scorer.scores(["background", "cat", "dog"]).miou
    found = mask_interval(["a", "b", "c", "gone"], tmp_path / "predicted", tmp_path / "truth", VOCABULARY, 255)
    assert found == pytest.approx((expected, expected))


@pytest.mark.parametrize("key", ["mean_ap", "micro.precision", "micro.recall", "micro.f1"])
def test_the_interval_of_tags_is_around_the_figure(key, monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 60)
    generator = np.random.default_rng(1)
    truth = generator.random((80, 2)) < 0.5
    scores = truth * 0.3 + generator.random((80, 2))
    tags = scores > 0.6
    metrics = measure_tags(truth, tags, scores, VOCABULARY.names)
    low, high = tag_interval(TagScores(metrics, truth, scores, 0, 0), tags, VOCABULARY.names, key)
    value = metrics
    for name in key.split("."):
        value = getattr(value, name)
    assert low < value < high
    assert high - low < 0.5

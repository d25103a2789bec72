"""Thresholds from scores: each method on scores whose answer is known."""

import json
import shutil

import numpy as np
import pytest

from tagclip.config import TagRuleConfig
from tagclip.errors import UsageError
from tagclip.tag_files import TagRecord
from tagclip.threshold_files import read_thresholds
from tagclip.thresholds import image_zscores, relative_scores, select, zscores
from tests.tools.commands import command
from wsss.evaluation.threshold_calibration import (
    BootstrapConfig,
    CalibrationRequest,
    calibrate_records,
    checked_labels,
    quantile_threshold,
)
from wsss.files.corrections import Corrections, ImageCorrection
from wsss.files.run_reader import RunReader
from wsss.pipeline.changes import WantedTags

NAMES = ("cat", "dog", "bird", "car")


@pytest.fixture(scope="module")
def known():
    """Scores of 400 images whose classes differ in bias and spread, and their truth; a third shows each class."""
    rng = np.random.default_rng(3)
    truth = rng.random((400, 4)) < np.array([0.1, 0.3, 0.3, 0.5])
    raw = rng.normal(0, 1, (400, 4)) + 5 * truth
    bias, spread = np.array([0.1, 0.2, 0.3, 0.5]), np.array([0.01, 0.02, 0.05, 0.03])
    return (bias + spread * raw).astype(np.float32), truth


def records(scores):
    return [TagRecord(f"i{place}", (), scores=row) for place, row in enumerate(scores)]


def chosen(scores, found):
    return select(scores, found.thresholds.applied_to(TagRuleConfig()).for_classes(NAMES))


def f1(truth, tags):
    return 2 * (truth & tags).sum() / (truth.sum() + tags.sum())


def test_an_expected_share_is_met(known):
    scores, truth = known
    shares = dict(zip(NAMES, truth.mean(axis=0).tolist(), strict=True))
    found = calibrate_records(records(scores), NAMES, CalibrationRequest(prevalence=shares))
    assert found.thresholds.rule == "absolute"
    assert list(found.after.values()) == truth.sum(axis=0).tolist()
    assert f1(truth, chosen(scores, found)) > 0.95
    relative = calibrate_records(records(scores), NAMES, CalibrationRequest(prevalence=0.25, rule="relative"))
    thresholds = np.array(list(relative.thresholds.thresholds.values()))
    # Of fewer than ten classes the relative rule counts from 0, see `TagRuleConfig.floor`; the floor comes on top.
    # The last class is the best one of most images, and equal scores (1) are all above a threshold or all below.
    assert list((relative_scores(scores, from_zero=True) > thresholds).sum(axis=0))[:3] == [100] * 3


@pytest.mark.parametrize(
    ("values", "share", "above"),
    [
        ([1, 2, 3, 4], 0.5, 2), ([1, 2, 3, 4], 0.0, 0), ([1, 2, 3, 4], 1.0, 4), ([1, 1, 1, 4], 0.5, 1),
        ([2, 2, 2, 2], 0.4, 0), ([2, 2, 2, 2], 0.6, 4), ([0, 3, 3, 3], 0.3, 0), ([0, 3, 3, 3], 0.5, 3),
    ],
)  # fmt: skip
def test_quantiles_cut_between_different_scores(values, share, above):
    scores = np.array(values, np.float32)
    assert (scores > np.float32(quantile_threshold(scores, share))).sum() == above


def test_scaled_scores_follow_the_formula_of_sparc(known):
    scores, _ = known
    found = calibrate_records(records(scores), NAMES, CalibrationRequest("zscore", threshold=1.0))
    assert found.thresholds.rule == "zscore"
    image = (scores - scores.mean(1, keepdims=True)) / scores.std(1, ddof=1, keepdims=True)
    final = (image - image.mean(0)) / image.std(0, ddof=1)
    assert chosen(scores, found).tolist() == (final > 1.0).tolist()
    scales = np.array(list(found.thresholds.scales.values()))
    assert np.allclose(zscores(scores, scales), final, atol=1e-4)
    assert (image_zscores(np.full((2, 3), 0.5)) == 0).all()
    assert (image_zscores(np.ones((2, 1))) == 0).all()


def test_one_threshold_serves_all_classes_after_scaling(known):
    scores, truth = known
    plain = max(f1(truth, scores > t) for t in np.linspace(0, 1, 201))
    found = calibrate_records(records(scores), NAMES, CalibrationRequest("class-zscore"))
    assert plain < 0.85
    assert f1(truth, chosen(scores, found)) > 0.9
    # Scaling per class alone is a threshold per class on the scores themselves.
    mean, deviation = scores.mean(0, dtype=np.float64), scores.std(0, ddof=1, dtype=np.float64)
    cut = found.thresholds.notes["threshold"]
    assert found.thresholds.rule == "absolute"
    assert list(found.thresholds.thresholds.values()) == pytest.approx((mean + cut * deviation).tolist(), abs=1e-6)


def test_scaling_per_image_is_no_threshold_per_class():
    """Two images with the same score of a class, of which one has the tag: no threshold on that score says so."""
    scores = np.array([[0.5, 0.1, 0.1], [0.5, 0.9, 0.9], [0.2, 0.3, 0.6], [0.1, 0.8, 0.3]], np.float32)
    found = calibrate_records(records(scores), NAMES[:3], CalibrationRequest("zscore", threshold=0.3))
    tags = select(scores, found.thresholds.applied_to(TagRuleConfig()).for_classes(NAMES[:3]))
    assert tags[:2, 0].tolist() == [True, False]


def test_labels_find_thresholds_and_say_how_sure_they_are(known):
    scores, truth = known
    labels = {f"i{place}": tuple(np.flatnonzero(row).tolist()) for place, row in enumerate(truth[:60])}
    request = CalibrationRequest(labels=labels, bootstrap=BootstrapConfig(rounds=60))
    found = calibrate_records(records(scores), NAMES, request)
    assert found.fit.images == 60
    assert found.fit.positives == dict(zip(NAMES, truth[:60].sum(axis=0).tolist(), strict=True))
    assert f1(truth[60:], chosen(scores[60:], found)) > 0.8
    assert found.fit.f1 == pytest.approx(f1(truth[:60], chosen(scores[:60], found)))
    low, high = found.fit.unseen_interval
    assert low <= found.fit.unseen_f1 <= high
    for name, value in found.thresholds.thresholds.items():
        assert found.fit.intervals[name][0] <= value <= found.fit.intervals[name][1], name
    again = calibrate_records(records(scores), NAMES, request)
    assert again.fit == found.fit
    few = calibrate_records(
        records(scores), NAMES,
        CalibrationRequest(labels=dict(list(labels.items())[:8]), bootstrap=BootstrapConfig(rounds=60)),
    )  # fmt: skip
    widths = [sum(high - low for low, high in one.fit.intervals.values()) for one in (few, found)]
    assert widths[0] > widths[1]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (CalibrationRequest("prevalence"), "--prevalence: needed"),
        (CalibrationRequest(prevalence={"cat": 0.1}), "none of 'dog'; give one per class"),
        (CalibrationRequest(prevalence={"cow": 0.1}), "'cow' is not a class"),
        (CalibrationRequest("distribution", prevalence=0.1), "method distribution does not use it"),
        (CalibrationRequest("labels"), "--labels: needed"),
        (CalibrationRequest(labels={"nobody": (0,)}), "none of their 1 images is among the 400"),
        (CalibrationRequest(labels={"i0": ()}), "no positive label|at least 2 images"),
    ],
)
def test_what_contradicts_itself_is_named(known, request_, message):
    with pytest.raises(UsageError, match=message):
        calibrate_records(records(known[0]), NAMES, request_)


def test_scores_that_cannot_be_calibrated_are_named(known):
    scores, _ = known
    with pytest.raises(UsageError, match="not all scores of this run were stored"):
        calibrate_records([TagRecord("a", (0,))], NAMES, CalibrationRequest())
    missing = scores[:5].copy()
    missing[2, 1] = np.nan
    with pytest.raises(UsageError, match="not all scores of this run were stored"):
        calibrate_records(records(missing), NAMES, CalibrationRequest())
    flat = scores[:5].copy()
    flat[:, 1] = 0.5
    with pytest.raises(UsageError, match="class 'dog' has the same score in every image"):
        calibrate_records(records(flat), NAMES, CalibrationRequest("class-zscore"))
    with pytest.raises(UsageError, match="2 classes are too few"):
        calibrate_records(records(scores[:, :2]), NAMES[:2], CalibrationRequest("zscore"))


def test_the_command_writes_a_file_that_runs_read(finished, tmp_path, capsys):
    tool, out = command("calibrate"), tmp_path / "t.yaml"
    options = ["--run", str(finished.run)]
    assert tool([*options, "--prevalence", "0.5", "--dry-run"]) == 0
    assert "method prevalence, rule absolute, scores of 6 images" in capsys.readouterr().out
    assert not out.exists()
    assert tool([*options, "--method", "zscore", "--out", str(out), "--json", str(tmp_path / "f.json")]) == 0
    found = read_thresholds(out, RunReader(finished.run).vocabulary.names)
    assert found.rule == "zscore"
    assert found.notes["run"] == RunReader(finished.run).id
    assert json.loads((tmp_path / "f.json").read_text())["thresholds"] == pytest.approx(dict(found.thresholds))
    labels = tmp_path / "labels.txt"
    labels.write_text("part0/0 0\npart0/1 1 2\npart1/0 0 1\n")
    assert tool([*options, "--labels", str(labels), "--out", str(out), "--overwrite"]) == 0
    shown = capsys.readouterr().out
    assert "3 labelled images: F1" in shown
    assert "interval" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--out: needed"),
        (["--dry-run", "--prevalence", "1.5"], "--prevalence 1.5: not a share"),
        (["--dry-run", "--prevalence", "cat=0.1", "cat=0.2"], "'cat' is there twice"),
        (["--dry-run", "--prevalence", "0.1", "0.2"], "neither one number nor CLASS=NUMBER"),
        (["--dry-run", "--prevalence", "nan"], "not a share"),
        (["--dry-run", "--method", "cam"], "--method cam: not one of distribution, prevalence, zscore, class-zscore"),
    ],
)
def test_the_command_names_mistakes(finished, options, message):
    with pytest.raises(UsageError, match=message):
        command("calibrate")(["--run", str(finished.run), *options])


def test_checked_images_are_labels(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    with pytest.raises(UsageError, match="no image of this run was checked"):
        checked_labels(run)
    reader = RunReader(run)
    said = Corrections(reader.id, images={"part0/0": ImageCorrection(("dog",), (), "checked")})
    wanted = WantedTags(reader.vocabulary, None, None, said)
    from tagclip.tag_files import tag_line

    lines = [json.dumps(tag_line(wanted.of(record), reader.vocabulary)) for record in reader.records()]
    (run / "tags.jsonl").write_text("\n".join(lines) + "\n")
    found = checked_labels(run)
    assert list(found) == ["part0/0"]
    assert 1 in found["part0/0"]
    assert checked_labels(tmp_path) is None

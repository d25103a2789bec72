"""Soft labels: what a run gives, CCD's correction and CDUL's update against plain loops and by their properties."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from tagclip.errors import UsageError
from wsss.distillation.distillation_config import AlignmentConfig, BiasConfig
from wsss.distillation.soft_labels import align_labels, correct_class_bias, read_soft_labels
from wsss.distillation.student_training import binary_divergence
from wsss.files.run_reader import RunReader

RNG = np.random.default_rng(0)


def test_labels_are_the_scores_of_the_run(tagged):
    found = read_soft_labels(RunReader(tagged.run))
    records = list(RunReader(tagged.run).records())
    assert found.ids == tuple(record.id for record in records)
    np.testing.assert_array_equal(found.labels, np.stack([record.scores for record in records]))
    assert all(path.is_file() for path in found.paths)
    assert found.digest == read_soft_labels(RunReader(tagged.run)).digest


def test_what_a_person_said_wins_over_scores(tagged, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tagged.run, run)
    lines = [json.loads(line) for line in (run / "tags.jsonl").read_text().splitlines()]
    lines[1]["correction"] = {"machine": [], "added": {"dog": "me"}, "removed": {"cat": "me"}}
    (run / "tags.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found, before = read_soft_labels(RunReader(run)), read_soft_labels(RunReader(tagged.run))
    assert found.labels[1].tolist() == [0, 1, before.labels[1, 2]]
    np.testing.assert_array_equal(np.delete(found.labels, 1, 0), np.delete(before.labels, 1, 0))
    assert np.argwhere(found.corrected).tolist() == [[1, 0], [1, 1]]
    assert not before.corrected.any()
    assert found.digest != before.digest


def test_scores_that_were_not_stored_are_refused(tagged, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tagged.run, run)
    lines = [json.loads(line) for line in (run / "tags.jsonl").read_text().splitlines()]
    lines[0]["scores"] = {"cat": 0.5}
    (run / "tags.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UsageError, match=r"scores of 1 images are not all stored .* without --keep-scores"):
        read_soft_labels(RunReader(run))


def test_bias_is_the_mean_best_score_of_confident_images():
    labels = RNG.random((40, 12)).astype(np.float32) ** 6
    config = BiasConfig(entropy=1.6, floor=0.05, doubtful_weight=0.3)
    found = correct_class_bias(labels, config)
    entropies = []
    for row in labels:
        share = row / row.sum()
        entropies.append(-sum(value * math.log(value) for value in share if value > 0))
    confident = np.array(entropies) <= 1.6
    assert 5 < confident.sum() < 35
    for label in range(12):
        best = [row[label] for row, sure in zip(labels, confident, strict=True) if sure and row.argmax() == label]
        bias = float(np.mean(best)) if best else 1.0
        assert found.bias[label] == pytest.approx(bias, rel=1e-5)
        expected = np.clip(np.maximum(labels[:, label], 0.05) / bias, 0, 1)
        np.testing.assert_allclose(found.labels[:, label], expected, rtol=1e-5)
    assert set(found.weights[confident].tolist()) == {1.0}
    np.testing.assert_allclose(found.weights[~confident], 0.3)


def test_bias_makes_a_class_that_scores_low_everywhere_comparable():
    labels = np.array([[0.9, 0.1], [0.8, 0.05], [0.1, 0.3], [0.05, 0.2]], np.float32)
    found = correct_class_bias(labels, BiasConfig())
    np.testing.assert_allclose(found.bias, [0.85, 0.25])
    assert found.labels[2, 1] == 1
    assert found.labels.min() >= 0
    assert found.labels.max() <= 1


def test_the_update_follows_the_gradient_that_autograd_finds():
    labels, predicted = RNG.uniform(0.05, 0.95, (2, 6, 4))
    config = AlignmentConfig(enabled=True, margin=1e-6)
    moved = align_labels(labels, predicted, config)
    latent = torch.logit(torch.tensor(labels)).requires_grad_()
    label = torch.tensor(labels, requires_grad=True)
    divergence = binary_divergence(torch.logit(torch.tensor(predicted)), label)
    (gradient,) = torch.autograd.grad(divergence.sum(), label)
    psi = torch.exp(-((label - 0.5) ** 2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(moved, torch.sigmoid(latent - psi * gradient).detach().numpy(), rtol=1e-5)


def test_labels_stay_inside_and_uncertain_ones_move_most():
    config = AlignmentConfig(enabled=True)
    labels = np.array([[0.0, 1.0, 0.5]])
    moved = align_labels(labels, 1 - labels, config)
    assert ((moved > 0) & (moved < 1)).all()
    assert moved[0, 2] == pytest.approx(0.5)
    odds = np.log(0.5 / 0.5), np.log(0.95 / 0.05)
    seen = [1 / (1 + np.exp(-(value - 1))) for value in odds]  # the same gradient, 1, for both
    moved = align_labels(np.array([[0.5, 0.95]]), np.array([seen]), config)
    assert 0.5 - moved[0, 0] > 4 * (0.95 - moved[0, 1]) > 0
    assert np.abs(align_labels(labels, labels, config) - labels).max() < 2 * config.margin


def test_when_labels_move():
    config = AlignmentConfig(enabled=True, first_epoch=2, every=3)
    assert [epoch for epoch in range(12) if config.updates_after(epoch, 11)] == [2, 5, 8]
    assert not any(AlignmentConfig().updates_after(epoch, 11) for epoch in range(12))
    assert [epoch for epoch in range(7) if AlignmentConfig(True, 0, 2).updates_after(epoch, 6)] == [2, 4]


def test_divergence_is_zero_at_the_labels_and_positive_elsewhere():
    labels = torch.tensor([[0.0, 0.3, 1.0]])
    assert binary_divergence(torch.tensor([[-30.0, math.log(0.3 / 0.7), 30.0]]), labels).abs().max() < 1e-6
    found = binary_divergence(torch.tensor([[0.0, 0.0, 0.0]]), labels)
    expected = [math.log(2), 0.3 * math.log(0.6) + 0.7 * math.log(1.4), math.log(2)]
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5)

"""DMAR as pure functions, against recorded arrays and against the plain loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tagclip.clip import Grid
from tagclip.config import DMARConfig
from tagclip.dmar import coarse_scores, local_scores, masked_affinity, refine_scores
from tests.golden import golden_cases
from tests.oracle.model import minmax
from tests.oracle.tagclip import box_mask

TARGETS = {"voc": 20, "coco": 80, "cocostuff": 171}
WITH_AFFINITY = [case for case in golden_cases("tag") if "affinity" in case.arrays()]


@pytest.mark.parametrize("case", WITH_AFFINITY, ids=str)
def test_refinement_equals_the_recorded_one(case, device):
    recorded = case.arrays()
    got = refine_scores(
        torch.from_numpy(recorded["coarse"])[None].to(device),
        torch.from_numpy(recorded["affinity"])[None].to(device),
        Grid(*recorded["grid"].tolist()),
        DMARConfig(clip_boxes=True),
    )
    assert np.abs(got.scores[0].cpu().numpy() - recorded["refined"]).max() < 1e-5
    if "first" in recorded:
        assert np.abs(got.first[0].cpu().numpy() - recorded["first"]).max() < 1e-5
    local = local_scores(got.scores, TARGETS[case.vocabulary])
    assert np.abs(local[0].cpu().numpy() - recorded["local"]).max() < 1e-5


def random_batch(batch=3, classes=6):
    grid, generator = Grid(5, 7), torch.Generator().manual_seed(5)
    coarse = torch.randn(batch, grid.count, classes, generator=generator).mul(3).softmax(dim=-1)
    affinity = torch.rand(batch, grid.count, grid.count, generator=generator)
    return coarse, affinity, grid


@pytest.mark.parametrize("clip_boxes", [True, False])
def test_batch_equals_a_loop_over_images_and_classes(clip_boxes, device):
    coarse, affinity, grid = random_batch()
    got = refine_scores(coarse.to(device), affinity.to(device), grid, DMARConfig(clip_boxes=clip_boxes)).scores.cpu()
    for image in range(len(coarse)):
        first = affinity[image] @ coarse[image]
        for c in range(coarse.shape[2]):
            values = minmax(first[:, c]).reshape(grid.height, grid.width).numpy()
            mask = torch.from_numpy(box_mask(values, float(values.mean()), clip_boxes)).flatten()
            expected = (affinity[image] * mask) @ coarse[image, :, c]
            torch.testing.assert_close(got[image, :, c], expected, rtol=1e-6, atol=1e-6)


def test_quirk_default_lets_the_last_row_and_column_contribute():
    grid = Grid(4, 4)
    coarse = torch.full((1, 16, 2), 0.1)
    coarse[0, 15, 0] = 0.9  # the lower right patch alone shows class 0
    affinity = torch.eye(16)[None]
    kept = refine_scores(coarse, affinity, grid, DMARConfig())
    lost = refine_scores(coarse, affinity, grid, DMARConfig(clip_boxes=True))
    assert float(kept.scores[0, 15, 0]) == pytest.approx(0.9)
    assert float(lost.scores[0, 15, 0]) == 0


def test_class_mask_switch_leaves_the_first_refinement():
    coarse, affinity, grid = random_batch()
    got = refine_scores(coarse, affinity, grid, replace(DMARConfig(), class_mask=False))
    torch.testing.assert_close(got.scores, affinity @ coarse)


def test_votes_mask_the_affinity(device):
    affinity = torch.ones(1, 2, 2, device=device)
    votes = torch.tensor([[[3, 4], [5, 0]]], dtype=torch.uint8, device=device)
    assert masked_affinity(affinity, votes, 4).tolist() == [[[0, 1], [1, 0]]]
    assert masked_affinity(affinity, None, 4).tolist() == [[[1, 1], [1, 1]]]


@pytest.mark.parametrize(("depth", "needed"), [(12, 4), (24, 8), (10, 4), (1, 1), (32, 11)])
def test_votes_needed_are_a_third_of_the_blocks_rounded_up(depth, needed):
    assert DMARConfig().votes_needed(depth) == needed


def test_coarse_scores_are_distributions_over_all_classes(device):
    features = torch.nn.functional.normalize(torch.randn(2, 5, 8, device=device), dim=-1)
    text = torch.nn.functional.normalize(torch.randn(4, 8, device=device), dim=-1)
    got = coarse_scores(features.bfloat16(), text, 100.0)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.sum(dim=-1), torch.ones(2, 5, device=device))


@pytest.mark.parametrize("class_mask", [True, False])
def test_many_classes_are_refined_in_parts_and_come_out_the_same(class_mask, monkeypatch):
    coarse, affinity, grid = random_batch(classes=11)
    config = DMARConfig(class_mask=class_mask)
    expected = refine_scores(coarse, affinity, grid, config)
    monkeypatch.setattr("tagclip.dmar.CLASSES_AT_ONCE", 4)
    got = refine_scores(coarse, affinity, grid, config)
    for name, values in expected._asdict().items():
        torch.testing.assert_close(getattr(got, name), values, rtol=1e-6, atol=1e-7)

"""PAR: weights by hand, and what the recorded arrays do not say (those are in tests/wsss/dense/test_golden_more.py)."""

import numpy as np
import pytest
import torch

from wsss.config import MaskConfig, ParConfig
from wsss.masks.label_map import refine_label_scores
from wsss.masks.par import par_weights, refine_with_par


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_weights_by_hand():
    image, config = noise(3, 9, 11), ParConfig(dilations=(1, 3), colour_scale=0.5, place_weight=0.2)
    y, x = 4, 6
    places = [(d * dy, d * dx) for d in (1, 3) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    seen = torch.stack([image[:, min(max(y + dy, 0), 8), min(max(x + dx, 0), 10)] for dy, dx in places])
    colours = -(((image[:, y, x] - seen) / (0.5 * seen.std(0))) ** 2).mean(1)
    far = torch.tensor([float(np.hypot(dy, dx)) for dy, dx in places])
    near = -((far / (0.5 * far.std())) ** 2)
    expected = colours.softmax(0) + 0.2 * near.softmax(0)
    assert torch.allclose(par_weights(image, config)[:, y, x], expected, rtol=1e-4)


def test_weights_sum_to_one_and_a_little():
    weights = par_weights(noise(3, 8, 8), ParConfig())
    assert torch.allclose(weights.sum(0), torch.full((8, 8), 1.01), atol=1e-5)
    refined = refine_with_par(noise(3, 8, 8), torch.ones(2, 8, 8), ParConfig(iterations=3))
    assert torch.allclose(refined, torch.full((2, 8, 8), 1.01**3), rtol=1e-5)


def test_flat_pictures_are_finite():
    assert refine_with_par(torch.zeros(3, 5, 7), noise(2, 5, 7), ParConfig()).isfinite().all()


def test_maps_keep_to_edges():
    image = torch.zeros(3, 24, 24)
    image[:, :, 12:] = 1
    image += 0.01 * noise(3, 24, 24)
    maps = torch.zeros(1, 24, 24)
    maps[:, :, 14:] = 1
    found = refine_with_par(image, maps, ParConfig())[0]
    assert found[:, 12:].min() > 2 * found[:, :11].max()


def test_as_a_refiner_of_masks():
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    scores = noise(3, 20, 30).numpy()
    config = MaskConfig.from_dict({"refiner": "par"})
    found = refine_label_scores(rgb, scores, config)
    assert found.sum(0) == pytest.approx(1, abs=1e-5)
    image = torch.from_numpy(rgb).permute(2, 0, 1)
    refined = refine_with_par(image, torch.from_numpy(scores), config.par).numpy()
    assert np.abs(found - refined / refined.sum(0)).max() < 1e-6

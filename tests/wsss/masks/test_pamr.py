import numpy as np
import pytest
import torch

from wsss.config import PamrConfig
from wsss.masks.pamr import refine_with_pamr

AROUND = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def by_the_formula(image, scores, config):
    """PAMR pixel by pixel, as the paper writes it."""
    _, height, width = image.shape
    offsets = [(d * dy, d * dx) for d in config.dilations for dy, dx in AROUND]

    def at(values, y, x):
        return values[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]

    weights = np.zeros((len(offsets), height, width))
    for y in range(height):
        for x in range(width):
            around = np.stack([image[:, y, x]] + [at(image, y + dy, x + dx) for dy, dx in offsets])
            scale = config.temperature * around.std(axis=0, ddof=1) + 1e-9
            logits = -(np.abs(around[1:] - around[0]) / scale).mean(axis=1)
            weights[:, y, x] = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for _ in range(config.iterations):
        refined = np.zeros_like(scores)
        for n, y, x in np.ndindex(weights.shape):
            refined[:, y, x] += weights[n, y, x] * at(scores, y + offsets[n][0], x + offsets[n][1])
        scores = refined
    return scores


def test_equals_the_formula():
    random = np.random.default_rng(0)
    image, scores = random.random((3, 7, 9)), random.random((2, 7, 9))
    config = PamrConfig(dilations=(1, 3), iterations=3)
    actual = refine_with_pamr(torch.from_numpy(image), torch.from_numpy(scores), config)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), by_the_formula(image, scores, config), atol=2e-5)


def edge_picture():
    image = torch.full((3, 40, 60), 30.0)
    image[:, :, 30:] = 220
    return image


def test_stops_at_edges():
    scores = torch.full((1, 40, 60), 0.2)
    scores[:, :, 32:] = 0.8  # the true edge is at 30
    refined = refine_with_pamr(edge_picture(), scores, PamrConfig())[0]
    assert (refined[:, :30] < 0.21).all()
    assert (refined[:, 30:32] > 0.5).all()
    assert (refined[:, 33:] > 0.7).all()


def test_averages_only():
    scores = torch.rand(3, 40, 60).softmax(0)
    refined = refine_with_pamr(edge_picture() + torch.rand(3, 40, 60), scores, PamrConfig())
    torch.testing.assert_close(refined.sum(0), torch.ones(40, 60), rtol=0, atol=1e-4)
    assert refined.amin() >= scores.amin()
    assert refined.amax() <= scores.amax()


@pytest.mark.parametrize("factor", [1.0, 1 / 255])
def test_scale_of_the_image_does_not_matter(factor):
    image, scores = edge_picture() + torch.rand(3, 40, 60) * 9, torch.rand(2, 40, 60)
    expected = refine_with_pamr(image, scores, PamrConfig())
    actual = refine_with_pamr((image * factor), scores, PamrConfig())
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)


def test_flat_image_and_tiny_image():
    flat = refine_with_pamr(torch.full((3, 5, 5), 128.0), torch.eye(5)[None], PamrConfig())
    assert torch.isfinite(flat).all()
    one = refine_with_pamr(torch.zeros(3, 1, 1), torch.tensor([[[0.3]]]), PamrConfig())
    assert one.item() == pytest.approx(0.3)

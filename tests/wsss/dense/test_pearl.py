"""PEARL: alignment of keys and queries, and propagation along edges, on small arrays."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tagclip.vocabulary import Vocabulary
from tests.golden_more import more_arrays, tensor
from wsss.dense import dense_features
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.dense.logits import PatchField
from wsss.dense.procrustes import alignment, centred_by_queries
from wsss.dense.strategies import pearl
from wsss.dense.strategy import get_strategy
from wsss.dense.text_propagation import (
    PropagationConfig,
    edge_weights,
    laplacian,
    pooled,
    pooling_window,
    propagate,
    solve_propagation,
    word_relations,
)

PUBLISHED = PropagationConfig(agreement="diagonal")


@pytest.fixture(scope="module")
def picture():
    return torch.randn(3, 112, 160, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("solver", "name"), [("newton-schulz", "pearl_attention"), ("svd", "pearl_attention_svd")])
def test_recorded_attention(solver, name):
    recorded = more_arrays("more_synthetic")
    q, k = (tensor(recorded[f"pearl_{part}"])[None] for part in "qk")
    left, right = pearl.logit_factors(q, k, pearl.PearlOptions(solver=solver))
    found = (left @ right.transpose(-2, -1) * 8**-0.5).softmax(-1)[0]
    assert np.abs(found.numpy() - recorded[name]).max() <= 1e-5


def test_recorded_propagation_without_pooling():
    recorded = more_arrays("more_synthetic")
    red, green, blue = tensor(recorded["tlp_image_40x50"])
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    cosines, rows = tensor(recorded["tlp_logits_40x50"]), tensor(recorded["tlp_text_40x50"])
    found = solve_propagation(cosines, grey, rows, PUBLISHED)
    assert np.abs(found.numpy() - recorded["tlp_out_40x50"]).max() <= 1e-4
    # The paper compares all pairs of words, its code each with itself.
    full = solve_propagation(cosines, grey, rows, PropagationConfig())
    assert np.abs(full.numpy() - recorded["tlp_out_40x50"]).max() > 1e-3


def test_recorded_propagation_in_windows():
    recorded = more_arrays("more_synthetic")
    image = tensor(recorded["tlp_image_93x170"])
    signs = torch.tensor([1, 1, 1, -1, -1])[:, None, None]
    field = PatchField(image[[0, 1, 2, 0, 1]] * signs, 93, 170)
    window = pooling_window((93, 170), 80)
    assert window == (1, 2)
    red, green, blue = F.avg_pool2d(image[None], window)[0]
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    solved = solve_propagation(pooled(field, window, 2**20), grey, tensor(recorded["tlp_text_93x170"]), PUBLISHED)
    found = PatchField(solved, 93, 170).rows(0, 93)[:, ::3, ::3]
    assert np.abs(found.numpy() - recorded["tlp_out_93x170"]).max() <= 1e-4


def test_alignment_turns_rotated_keys_back():
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    q = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    k = q @ rotation.T
    exact = alignment(k.T @ q, solver="svd")
    assert torch.allclose(k @ exact, q, atol=1e-4)
    many, few = (alignment(k.T @ q, steps=steps) for steps in (40, 5))
    assert (many - exact).abs().max() <= 1e-3
    assert (few - exact).abs().max() > 1e-2  # five steps are far from the rotation: part of the method


def test_class_token_has_no_part_in_the_means():
    q = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))
    weights = q[:, 1:].norm(dim=-1, keepdim=True)
    mean = (weights * q[:, 1:]).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    assert torch.allclose(centred_by_queries(q, q)[0], q - mean, atol=1e-5)


def test_off_is_query_key_attention_bit_for_bit(golden_clip, picture):
    plain = dataclasses.replace(get_strategy("clip"), residual=False, mlp=False)
    off = dense_features(golden_clip, picture, "pearl", align=False)
    assert torch.equal(off, dense_features(golden_clip, picture, plain))
    assert (dense_features(golden_clip, picture, "pearl") - off).abs().max() > 1e-3


def test_presets_differ_in_positions_only():
    reference, default = (get_strategy("pearl", preset=name).options for name in ("reference", "default"))
    assert dataclasses.replace(reference, dino_positions=False) == default


def test_laplacian_and_weights_by_hand():
    generator = torch.Generator().manual_seed(0)
    maps, grey = torch.rand(3, 4, 5, generator=generator), torch.rand(4, 5, generator=generator)
    rows = F.normalize(torch.randn(3, 6, generator=generator), dim=-1)
    relations = word_relations(rows, PropagationConfig())
    assert torch.allclose(relations.sum(-1), torch.ones(3))
    probabilities = maps.softmax(0)
    related = torch.einsum("qr,rhw->qhw", relations, probabilities)
    left, up = edge_weights(grey, probabilities, related, PropagationConfig())
    flat, size = probabilities.flatten(1), 20
    graph = torch.zeros(size, size)
    for one in range(size):
        y, x = divmod(one, 5)
        edges = ((one - 1, left, grey[:, 1:] - grey[:, :-1]), (one - 5, up, grey[1:] - grey[:-1]))
        for other, weights, differences in edges:
            if (weights is left and x == 0) or (weights is up and y == 0):
                continue
            step = (grey.flatten()[one] - grey.flatten()[other]).abs()
            alike = flat[:, one] @ relations @ flat[:, other]
            weight = min(1.0, float(torch.exp(-5 * step / differences.abs().mean()) * (1 + alike)))
            assert float(weights[y, x]) == pytest.approx(weight, rel=1e-3)
            graph[one, other] = graph[other, one] = weights[y, x]
    matrix = graph.sum(1).diag() - graph
    assert torch.allclose(laplacian(maps, left, up).flatten(1), maps.flatten(1) @ matrix, atol=1e-5)


def test_many_steps_reach_the_solution():
    generator = torch.Generator().manual_seed(0)
    cosines, grey = torch.rand(2, 5, 6, generator=generator), torch.rand(5, 6, generator=generator)
    rows = F.normalize(torch.randn(2, 6, generator=generator), dim=-1)
    solved = solve_propagation(cosines, grey, rows, PropagationConfig(steps=500))
    probabilities = cosines.softmax(0)
    related = torch.einsum("qr,rhw->qhw", word_relations(rows, PropagationConfig()), probabilities)
    weight = probabilities.amax(0).clamp(min=0.05) ** 2 * (1 + (probabilities * related).sum(0))
    left, up = edge_weights(grey, probabilities, related, PropagationConfig())
    assert torch.allclose(weight * solved + laplacian(solved, left, up), weight * cosines, atol=1e-4)
    assert torch.equal(solve_propagation(cosines, grey, rows, PropagationConfig(steps=0)), cosines)


def test_bands_equal_the_whole_and_one_row_images_work():
    field = PatchField(torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)), 97, 130)
    window = pooling_window((97, 130), 20)
    assert torch.allclose(pooled(field, window, 1), F.avg_pool2d(field.rows(0, 97)[None], window)[0], atol=1e-6)
    rows = F.normalize(torch.ones(3, 4), dim=-1)
    for size in ((1, 7), (7, 1), (1, 1)):
        flat = PatchField(torch.ones(3, 1, 1), *size)
        rgb = np.zeros((*size, 3), np.uint8)
        settings = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "chunk_bytes": 2**20}
        assert propagate(flat, rows, rgb, PropagationConfig(), **settings).rows(0, size[0]).isfinite().all()


def test_as_a_refinement_of_any_strategy(golden_clip):
    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    classes = Vocabulary(["cat", "dog"], background=["grass"])
    one = {"strategy": "clip", "templates": ("a photo of a {}.",)}
    plain = DenseSegmenter(golden_clip, classes, DenseConfig.from_dict(one))
    smooth = DenseSegmenter(golden_clip, classes, DenseConfig.from_dict({**one, "propagation": {"grid": 16}}))
    assert smooth.config.describe().endswith("no pixel threshold, propagated along edges")
    assert DenseConfig.from_dict({"propagation": True}).propagation == PropagationConfig()
    names, view = plain.names([0, 1]), plain.view(rgb)
    (features,), _ = plain.features(view, [plain.strategy])
    field = smooth.smoothed(plain.field(view, features, names), names, rgb)
    result = smooth(rgb)
    assert np.abs(result.confidence - (40 * field.rows(0, 96)).softmax(0).amax(0).numpy()).max() <= 1e-5
    assert np.abs(result.confidence - plain(rgb).confidence).max() > 1e-4
    assert torch.allclose(smooth.probabilities(rgb).amax(0), torch.from_numpy(result.confidence), atol=1e-5)

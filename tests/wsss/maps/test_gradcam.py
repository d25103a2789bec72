"""Softmax Grad-CAM: the written-out backward pass against automatic differentiation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tagclip.clip import Grid, attention, load_clip, wrap_clip
from tagclip.clip.pooled_gradient import PooledPatches
from tagclip.images import prepare_image
from tests.clip_models import B16, L14, make_model
from tests.golden import golden_cases
from wsss.config import CamConfig, MaskConfig
from wsss.maps import gradcam
from wsss.maps.gradcam import probability_gradients, scale_to_unit, softmax_gradcam, softmax_gradcam_together


def random_rows(count, size, seed=0):
    return F.normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)), dim=-1)


def random_tokens(clip, grid, seed=1):
    return torch.randn(1 + grid.count, clip.width, generator=torch.Generator().manual_seed(seed))


def autograd_gradients(clip, tokens, rows, tags):
    """Probabilities, and the mean over patches of d p_k / d a, by automatic differentiation of the whole path."""
    with torch.enable_grad():
        block = clip.blocks[-1]
        normed = attention.layer_norm(tokens[None], block.ln_1).detach().requires_grad_()
        attended = attention.attend(*attention.qkv_from_norm(normed, block))
        feature = clip.project(attention.finish_block(tokens[None], attended, block))[0, 1:].mean(0)
        probabilities = (clip.logit_scale * F.normalize(feature, dim=0) @ rows.T).softmax(0)
        (gradients,) = torch.autograd.grad(
            probabilities[:tags], normed, torch.eye(tags), is_grads_batched=True, retain_graph=False
        )
    return probabilities.detach(), gradients[:, 0, 1:].mean(1)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (B16, {}),
        (B16, {"quick_gelu": False}),
        (B16, {"ls_init_value": 0.7}),
        (L14, {}),
    ],
    ids=["quick-gelu", "gelu", "layer-scale", "L/14"],
)
def test_gradient_equals_autograd(shape, options):
    clip = wrap_clip(make_model(shape, **options))
    grid = Grid(4, 5)
    tokens, rows = random_tokens(clip, grid), random_rows(9, clip.embed_dim)
    expected_probabilities, expected = autograd_gradients(clip, tokens, rows, 3)
    pooled = PooledPatches(clip, tokens)
    probabilities, jacobian = probability_gradients(pooled.feature, rows, clip.logit_scale)
    torch.testing.assert_close(probabilities, expected_probabilities, rtol=1e-5, atol=1e-7)
    actual = pooled.gradient(jacobian[:3])
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_gradient_is_linear_for_tiny_directions(golden_clip):
    tokens = random_tokens(golden_clip, Grid(3, 4))
    pooled = PooledPatches(golden_clip, tokens)
    directions = random_rows(2, golden_clip.embed_dim)
    gradient = pooled.gradient(directions)
    torch.testing.assert_close(pooled.gradient(directions * 1e-12) * 1e12, gradient, rtol=1e-4, atol=1e-8)
    assert not pooled.gradient(torch.zeros(1, golden_clip.embed_dim)).any()


def test_no_parameter_gets_a_gradient(golden_clip):
    rows = random_rows(4, golden_clip.embed_dim)
    grid = Grid(3, 4)
    softmax_gradcam(golden_clip, random_tokens(golden_clip, grid), grid, rows[:2], rows[2:], CamConfig())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in golden_clip.parameters())


def test_works_in_inference_mode(golden_clip):
    grid = Grid(3, 4)
    rows, tokens = random_rows(4, golden_clip.embed_dim), random_tokens(golden_clip, grid)
    expected = softmax_gradcam(golden_clip, tokens, grid, rows[:2], rows[2:], CamConfig())
    with torch.inference_mode():
        actual = softmax_gradcam(golden_clip, tokens.clone(), grid, rows[:2], rows[2:], CamConfig())
    assert torch.equal(actual.maps, expected.maps)


@pytest.mark.parametrize("tags", [1, 2, 20])
def test_every_tag_count(golden_clip, tags):
    """K tags at once give each tag the map that the plain backward pass of that tag gives."""
    grid = Grid(4, 3)
    rows, tokens = random_rows(tags + 5, golden_clip.embed_dim), random_tokens(golden_clip, grid)
    found = softmax_gradcam(golden_clip, tokens, grid, rows[:tags], rows[tags:], CamConfig())
    assert found.maps.shape == (tags, 4, 3)
    assert found.probabilities.shape == (tags + 5,)
    assert found.probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    _, weights = autograd_gradients(golden_clip, tokens, rows, tags)
    normed = attention.layer_norm(tokens, golden_clip.blocks[-1].ln_1)[1:]
    expected = scale_to_unit(scale_to_unit((normed @ weights.T).relu().T.reshape(tags, 4, 3)))
    torch.testing.assert_close(found.maps, expected, rtol=0, atol=1e-4)
    # A peak below 1e-9 stays below 1 even after two passes; any other is 1.
    assert (found.maps.amax((1, 2)) > 0.99).float().mean() > 0.5


def test_no_tags(golden_clip):
    grid = Grid(2, 3)
    rows = random_rows(3, golden_clip.embed_dim)
    found = softmax_gradcam(golden_clip, random_tokens(golden_clip, grid), grid, rows[:0], rows, CamConfig())
    assert found.maps.shape == (0, 2, 3)
    assert found.probabilities.shape == (0,)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_probability_jacobian(scale):
    feature = torch.randn(16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rows = random_rows(7, 16).double()

    def probabilities(values):
        return (scale * F.normalize(values, dim=0) @ rows.T).softmax(0)

    expected = torch.autograd.functional.jacobian(probabilities, feature)
    actual, jacobian = probability_gradients(feature, rows, scale)
    torch.testing.assert_close(actual, probabilities(feature))
    torch.testing.assert_close(jacobian, expected, rtol=1e-8, atol=1e-12)


def test_certain_tag_keeps_its_gradient():
    """p_k rounds to 1 in float32; 1 - p_k is still right, so the map does not vanish."""
    rows = torch.eye(3)
    feature = torch.tensor([1.0, 0.0, 0.0])
    probabilities, jacobian = probability_gradients(feature, rows, 20.0)
    assert probabilities[0] == 1
    exact = probability_gradients(feature.double(), rows.double(), 20.0)[1]
    torch.testing.assert_close(jacobian.double(), exact, rtol=1e-5, atol=0)
    assert jacobian.abs().max() > 0


def test_scaling_twice_rescues_a_tiny_peak():
    tiny = torch.tensor([[[0.0, 1e-7], [5e-8, 0.0]]])
    once = scale_to_unit(tiny)
    assert once.max().item() == pytest.approx(0.5)
    assert scale_to_unit(once).max().item() == pytest.approx(1, abs=1e-6)
    assert not scale_to_unit(torch.full((2, 3, 3), 0.7)).any()


@pytest.mark.parametrize(
    ("dtype", "precision", "limit"),
    [
        ("bfloat16", "float32", 0.02),
        ("float16", "float32", 0.02),
        ("bfloat16", "model", 0.1),
        ("float16", "model", 0.02),
    ],
)
def test_half_precision_models(golden_model_path, golden_clip, dtype, precision, limit):
    half = load_clip(str(golden_model_path), dtype=dtype)
    grid = Grid(6, 5)
    tokens, rows = random_tokens(half, grid), random_rows(8, half.embed_dim)
    exact = softmax_gradcam(golden_clip, tokens, grid, rows[:3], rows[3:], CamConfig())
    found = softmax_gradcam(half, tokens.to(half.dtype), grid, rows[:3], rows[3:], CamConfig(precision=precision))
    assert found.maps.dtype == torch.float32
    assert (found.maps - exact.maps).abs().max() <= limit


def test_default_changes_nothing_in_float32(golden_clip):
    assert (MaskConfig.preset().cam.precision, MaskConfig.preset("reference").cam.precision) == ("model", "float32")
    grid = Grid(4, 3)
    tokens, rows = random_tokens(golden_clip, grid), random_rows(8, golden_clip.embed_dim)
    own, exact = (
        softmax_gradcam(golden_clip, tokens, grid, rows[:3], rows[3:], CamConfig(precision=precision))
        for precision in ("model", "float32")
    )
    assert torch.equal(own.maps, exact.maps)
    assert torch.equal(own.probabilities, exact.probabilities)


def test_default_is_close_in_bfloat16(golden_model_path):
    """What the default saves, products of one block in the model's dtype, costs this much of a map in [0, 1]."""
    clip, differences = load_clip(golden_model_path, device="cpu", dtype="bfloat16"), []
    for case in golden_cases("tag"):
        trunk = clip.trunk(prepare_image(np.asarray(case.image()), clip.patch_size, clip.mean, clip.std)[None])
        rows = random_rows(8, clip.embed_dim)
        own, exact = (
            softmax_gradcam(clip, trunk.tokens[0], trunk.grid, rows[:3], rows[3:], CamConfig(precision=precision)).maps
            for precision in ("model", "float32")
        )
        differences.append((own - exact).abs())
    assert max(float(one.max()) for one in differences) < 0.06
    assert max(float(one.mean()) for one in differences) < 0.01


@pytest.mark.parametrize("words", [0, 4])
@pytest.mark.parametrize("step_bytes", [1, gradcam.BYTES_TOGETHER])
def test_images_together_are_images_alone(golden_clip_on, device, words, step_bytes, monkeypatch):
    """With different numbers of tags, and none; one image per step or all in one."""
    monkeypatch.setattr(gradcam, "BYTES_TOGETHER", step_bytes)
    clip, grid, config = golden_clip_on(device), Grid(4, 5), CamConfig()
    counts, rows = (2, 0, 3, 1), random_rows(7, clip.embed_dim).to(device)
    tokens = torch.stack([random_tokens(clip, grid, seed) for seed in range(len(counts))]).to(device)
    tags, background = [rows[:count] for count in counts], rows[3 : 3 + words]
    maps, probabilities = softmax_gradcam_together(clip, tokens, grid, tags, background, config)
    assert maps.shape == (4, 3, 4, 5)
    assert probabilities.shape == (4, 3 + words)
    assert maps.isfinite().all()
    assert probabilities.isfinite().all()
    for image, count in enumerate(counts):
        alone = softmax_gradcam(clip, tokens[image], grid, tags[image], background, config)
        torch.testing.assert_close(maps[image, :count], alone.maps, rtol=0, atol=2e-5)
        if count:
            assert not maps[image, count:].any()
            assert not probabilities[image, count:3].any()
            likely = torch.cat([probabilities[image, :count], probabilities[image, 3:]])
            torch.testing.assert_close(likely, alone.probabilities, rtol=0, atol=1e-6)

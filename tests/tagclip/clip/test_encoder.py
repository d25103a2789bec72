"""The trunk and the last blocks against open_clip's own forward pass, plain attention, and the golden data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tagclip.clip import AttentionRequest, Grid, attention, wrap_clip
from tagclip.clip.attention import AttentionStatistics
from tagclip.errors import UsageError
from tests import clip_models
from tests.clip_models import B16, B32, L14, SHAPES, assert_close
from tests.golden import golden_cases

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def models():
    return {shape.name: clip_models.make_model(shape) for shape in SHAPES}


@pytest.fixture(scope="module")
def clips(models, device):
    return {name: wrap_clip(model, device=device) for name, model in models.items()}


def picture(shape, rows, columns, batch=1, seed=0):
    size = shape.patch_size
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, rows * size, columns * size, generator=generator)


def plain_blocks(model, tokens, bias=None):
    """Tokens after each block and head-averaged weights of each, by torch's own multi-head attention."""
    outputs, maps = [], []
    for block in model.visual.transformer.resblocks:
        normed = block.ln_1(tokens)
        attended, weights = block.attn(normed, normed, normed, need_weights=True, attn_mask=bias)
        tokens = tokens + block.ls_1(attended)
        tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
        outputs.append(tokens)
        maps.append(weights)
    return outputs, torch.stack(maps)


def embed(model, images, positions):
    visual = model.visual
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(images), 1, -1)
    return visual.ln_pre(torch.cat([first, patches], 1) + positions)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_native_grid_equals_open_clip(shape, clips, models):
    images = picture(shape, shape.grid, shape.grid, batch=2)
    clip, model = clips[shape.name], models[shape.name]
    expected = model.encode_image(images, normalize=True)
    assert_close(clip_models.class_feature(clip, images), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("shape", "rows", "columns"), [(B32, 5, 9), (B16, 3, 1), (L14, 6, 5)], ids=str)
def test_trunk_at_any_grid(shape, rows, columns, clips, models):
    clip, model = clips[shape.name], models[shape.name]
    images = picture(shape, rows, columns, batch=2)
    request = AttentionRequest(votes=True, ranges=((2, 3), (1, shape.depth)), keep=(1, 3))
    trunk = clip.trunk(images, request)
    start = embed(model, images, clip.positions(Grid(rows, columns)).cpu())
    outputs, maps = plain_blocks(model, start)
    maps = maps[:, :, 1:, 1:]
    assert (trunk.grid, trunk.grid.count) == (Grid(rows, columns), rows * columns)
    assert_close(trunk.tokens, outputs[-2], atol=1e-4, rtol=1e-4)
    assert_close(trunk.kept[1], start, atol=1e-5, rtol=1e-5)
    assert_close(trunk.kept[3], outputs[1], atol=1e-4, rtol=1e-4)
    assert set(trunk.kept) == {1, 3}
    for first, last in request.ranges:
        expected = maps[first - 1 : last].mean(0)
        assert_close(trunk.affinity[first, last], expected, atol=1e-5, rtol=0)
    above = maps > maps.mean((-2, -1), keepdim=True)
    unsure = ((maps - maps.mean((-2, -1), keepdim=True)).abs() < 1e-5).any(0)
    assert trunk.votes.dtype == torch.uint8
    assert torch.equal(trunk.votes.cpu()[~unsure].long(), above.sum(0)[~unsure])
    assert unsure.float().mean() < 0.02 or trunk.grid.count < 4


def test_maps_do_not_change_the_tokens_and_nothing_unasked_is_kept(clips):
    images = picture(B32, 6, 4)
    bare = clips["B/32"].trunk(images)
    assert (bare.votes, bare.affinity, bare.kept) == (None, {}, {})
    mapped = clips["B/32"].trunk(images, AttentionRequest(votes=True))
    assert_close(bare.tokens, mapped.tokens, atol=1e-4, rtol=1e-4)


def test_batch_equals_single_images(clips):
    images = torch.cat([picture(B16, 4, 6, seed=seed) for seed in range(3)])
    request = AttentionRequest(votes=True, ranges=((2, 4),))
    together = clips["B/16"].trunk(images, request)
    for index in range(3):
        alone = clips["B/16"].trunk(images[index : index + 1], request)
        assert_close(together.tokens[index], alone.tokens[0], atol=1e-4, rtol=1e-4)
        assert_close(together.affinity[2, 4][index], alone.affinity[2, 4][0], atol=1e-5, rtol=0)
        assert (together.votes[index] != alone.votes[0]).float().mean() < 0.01


def test_statistics_count_and_average(device):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(4, 2, 5, 5, generator=generator).to(device)
    statistics = AttentionStatistics(True, ((2, 3), (4, 4)), depth=4, batch=2, count=5, device=device)
    for number in range(1, 5):
        for image in range(2):
            statistics.receiver(number)(slice(image, image + 1), maps[number - 1, image : image + 1])
    assert_close(statistics.affinity[2, 3], maps[1:3].mean(0))
    assert_close(statistics.affinity[4, 4], maps[3])
    assert torch.equal(statistics.votes.long(), (maps > maps.mean((-2, -1), keepdim=True)).sum(0))
    together = AttentionStatistics(True, ((2, 3),), depth=4, batch=2, count=5, device=device)
    for number in range(1, 5):
        together.receiver(number)(slice(0, 2), maps[number - 1])
    assert torch.equal(together.votes, statistics.votes)
    assert_close(together.affinity[2, 3], statistics.affinity[2, 3])
    only_late = AttentionStatistics(False, ((3, 4),), depth=4, batch=1, count=5, device=device)
    assert [only_late.wants(number) for number in range(1, 5)] == [False, False, True, True]


@pytest.mark.parametrize("heads_per_step", [1, 2, 3])
@pytest.mark.parametrize("images_per_step", [1, 2, 3])
def test_steps_give_the_same_attention_and_maps(heads_per_step, images_per_step, monkeypatch, device):
    """Accelerators take several heads and images per step, CPUs one; steps of 2 leave a shorter last step."""
    monkeypatch.setattr(attention, "_heads_per_step", lambda device, dtype, heads, count: heads_per_step)
    monkeypatch.setattr(attention, "_images_per_step", lambda device, batch, heads, count: images_per_step)
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(3, 3, 7, 16, generator=generator).to(device) for _ in range(3))
    maps = torch.full((3, 6, 6), float("nan"), device=device)
    attended = attention.attend_with_maps(q, k, v, maps.__setitem__)
    weights = (q @ k.mT / 16**0.5).softmax(dim=-1)
    assert_close(attended, attention.merge_heads(weights @ v))
    assert_close(attended, attention.attend(q, k, v))
    assert_close(maps, weights.mean(1)[:, 1:, 1:])
    assert attention.attend_with_maps(q, k, None, maps.__setitem__) is None


def test_scratch_is_reused_while_it_fits():
    scratch, cpu = attention.Scratch(), torch.device("cpu")
    first = scratch.get("scores", (2, 3), torch.float32, cpu)
    assert scratch.get("scores", (2, 3), torch.float32, cpu) is first
    assert scratch.get("weights", (2, 3), torch.float32, cpu) is not first
    assert scratch.get("scores", (2, 4), torch.float32, cpu).shape == (2, 4)
    assert scratch.get("scores", (2, 4), torch.bfloat16, cpu).dtype == torch.bfloat16


def test_scratch_memory_of_an_accelerator_is_bounded():
    cuda = torch.device("cuda")
    assert attention._heads_per_step(cuda, torch.float32, 12, 197) == 12
    assert attention._heads_per_step(cuda, torch.float32, 12, 4097) == 7
    assert attention._heads_per_step(cuda, torch.float32, 12, 50_000) == 1
    assert attention._heads_per_step(torch.device("cpu"), torch.float32, 12, 197) == 1
    assert attention._heads_per_step(torch.device("cpu"), torch.bfloat16, 12, 769) == 4
    assert attention._images_per_step(cuda, 64, 12, 737) == 20
    assert attention._images_per_step(cuda, 64, 12, 4097) == 1
    assert attention._images_per_step(torch.device("cpu"), 64, 12, 197) == 1


@pytest.mark.parametrize("limit", [0, attention.PLAIN_PRODUCT_SCORES])
def test_bfloat16_attention_by_plain_products_and_by_the_fused_kernel(limit, monkeypatch, device):
    monkeypatch.setattr(attention, "PLAIN_PRODUCT_SCORES", limit)
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(2, 3, 7, 16, generator=generator).to(device) for _ in range(3))
    bias = torch.zeros(2, 1, 7, 7).index_fill_(3, torch.tensor([2]), -1000.0).to(device)
    for given in (None, bias):
        exact = attention.attend(q, k, v, given)
        half = attention.attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), given)
        assert_close(half.float(), exact, atol=0.03, rtol=0.03)


def test_local_last_block_is_the_value_path(clips, models):
    clip, block = clips["B/32"], models["B/32"].visual.transformer.resblocks[-1]
    trunk = clip.trunk(picture(B32, 5, 6)).tokens
    tokens = trunk.cpu()
    normed = block.ln_1(tokens)
    width = tokens.shape[-1]
    value = F.linear(normed, block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :])
    expected = tokens + block.attn.out_proj(value)
    expected = expected + block.mlp(block.ln_2(expected))
    local = clip.last_block(trunk, "local")
    assert_close(local, expected, atol=1e-4, rtol=1e-4)
    masked = clip.last_block(trunk, "masked_local")
    assert_close(masked, local, atol=1e-4, rtol=1e-4)
    assert (clip.last_block(trunk) - local).abs().max() > 0.1


def test_blocks_differentiate_by_the_norm(clips):
    clip = clips["B/16"]
    block = clip.blocks[-1]
    tokens = clip.trunk(picture(B16, 4, 5)).tokens

    def last_block(normed):
        attended = attention.attend(*attention.qkv_from_norm(normed, block))
        return attention.finish_block(tokens, attended, block)

    normed = attention.layer_norm(tokens, block.ln_1).requires_grad_(True)
    output = last_block(normed)
    assert_close(output.detach(), clip.last_block(tokens), atol=1e-5, rtol=1e-5)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output.device)
    (gradient,) = torch.autograd.grad((output * weights).sum(), normed)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        up, down = (last_block(normed + sign * step) for sign in (1, -1))
    numeric = ((up - down) * weights).sum() / 2
    assert_close(numeric, (gradient * step).sum(), rtol=2e-2, atol=0)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in clip.parameters())


def test_run_blocks_continues_from_a_kept_block(clips):
    clip = clips["L/14"]
    trunk = clip.trunk(picture(L14, 5, 4), AttentionRequest(keep=(2, 5)))
    assert_close(clip.run_blocks(trunk.kept[2], 2, 4), trunk.tokens, atol=1e-4, rtol=1e-4)
    assert torch.equal(trunk.kept[5], trunk.tokens)
    assert_close(clip.run_blocks(trunk.tokens, 5, 5), clip.last_block(trunk.tokens))


def test_run_blocks_with_bias_equals_masked_attention(clips, models):
    clip, model = clips["B/32"], models["B/32"]
    images = picture(B32, 3, 4)
    start = clip.trunk(images, AttentionRequest(keep=(1,))).kept[1]
    bias = torch.randn(1, 1, 13, 13, generator=torch.Generator().manual_seed(2)) * 3
    outputs, _ = plain_blocks(model, start.cpu(), bias[0, 0])
    blocks = clip.run_blocks(start, 1, 4, bias=bias.to(clip.device))
    assert_close(blocks, outputs[-1], atol=1e-4, rtol=1e-4)


def test_mlp_scales_act_on_one_channel_and_leave_the_model_alone(clips):
    clip = clips["B/32"]
    tokens = clip.trunk(picture(B32, 3, 4)).tokens
    weight = clip.blocks[-1].mlp.c_proj.weight
    before = weight.clone()
    scale = torch.ones(clip.width, device=clip.device)
    scale[5] = 0.25
    scaled = clip.run_blocks(tokens, 4, 4, mlp_scales={4: scale})
    assert torch.equal(weight, before)
    weight.data[5] *= 0.25
    expected = clip.last_block(tokens)
    weight.data.copy_(before)
    assert_close(scaled, expected, atol=1e-5, rtol=1e-5)
    changed = (scaled - clip.last_block(tokens)).abs().amax((0, 1)) > 1e-4
    assert changed.nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize("bias", [-1000.0, -2.0])
def test_encode_masked_is_an_additive_mask_on_the_class_row(bias, clips, models):
    clip, model = clips["B/16"], models["B/16"]
    images = picture(B16, 14, 14, batch=3)
    masks = torch.rand(3, 14, 14, generator=torch.Generator().manual_seed(3)) > 0.6
    full = torch.zeros(3, 197, 197)
    full[:, 0, 1:] = torch.where(masks.flatten(1), 0.0, bias)
    start = embed(model, images, model.visual.positional_embedding)
    outputs, _ = plain_blocks(model, start, full.repeat_interleave(clip.heads, 0))
    expected = F.normalize(model.visual.ln_post(outputs[-1][:, 0]) @ model.visual.proj, dim=-1)
    masked = clip.encode_masked(images, masks, bias=bias)
    assert_close(masked, expected, atol=TOLERANCE, rtol=0)
    assert (masked - clip_models.class_feature(clip, images)).abs().max() > 1e-3
    everything = clip.encode_masked(images, torch.ones_like(masks), bias=bias)
    assert_close(everything, clip_models.class_feature(clip, images), atol=TOLERANCE, rtol=0)


def test_positions_follow_the_published_interpolation(clips, models):
    clip = clips["B/16"]
    weights = models["B/16"].visual.positional_embedding
    assert torch.equal(clip.positions(Grid(14, 14)).cpu(), weights)
    patches = weights[1:].T.reshape(1, -1, 14, 14)
    expected = nn.functional.interpolate(patches, size=(9, 21), mode="bilinear", align_corners=False)
    positions = clip.positions(Grid(9, 21))
    assert torch.equal(positions[0].cpu(), weights[0])
    assert_close(positions[1:], expected.flatten(2)[0].T)


def test_position_rounding(device):
    clip = wrap_clip(clip_models.make_model(B32, half_values=False), device=device)
    native, other = clip.native_grid, Grid(4, 5)
    for grid, rounding, rounded in [
        (native, "none", False),
        (other, "none", False),
        (native, "float16_off_native", False),
        (other, "float16_off_native", True),
        (native, "float16", True),
        (other, "float16", True),
    ]:
        exact, positions = clip.positions(grid), clip.positions(grid, rounding)
        assert torch.equal(positions, exact.half().float() if rounded else exact)
        assert torch.equal(positions, exact) != rounded


@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mlp_in_half_precision_rounds_no_more_than_step_by_step(dtype, scale, bias, quick_gelu):
    block = clip_models.make_model(B16, quick_gelu=quick_gelu).visual.transformer.resblocks[0].to(dtype)
    if not bias:
        block.mlp.c_fc.bias = block.mlp.c_proj.bias = None
    tokens = torch.randn(2, 9, B16.width, generator=torch.Generator().manual_seed(1)).to(dtype)
    factors = None if scale is None else torch.full((B16.width,), scale)
    with torch.no_grad():
        found = attention.mlp(tokens, block, output_scale=factors)
        steps = block.mlp(block.ln_2(tokens))
        block.double()
        exact = block.mlp(block.ln_2(tokens.double()))
        if scale is not None:  # the factors are of the weights, not of the bias
            rest = 0 if not bias else block.mlp.c_proj.bias
            steps, exact = (scale * (values - rest) + rest for values in (steps, exact))
    assert found.dtype == dtype
    assert (found - exact).norm() < 1.2 * (steps - exact).norm()


def test_quick_gelu_in_float32_keeps_the_published_order_to_the_last_bit(golden_clip, monkeypatch):
    """x sigmoid(1.702 x), not silu(1.702 x) / 1.702: a last digit can turn a vote of DMAR, and with it a tag."""
    monkeypatch.setattr(attention, "CPU_TEMPORARY_BYTES", 2**14)  # several steps
    (case,) = (case for case in golden_cases("tag") if str(case) == "tag_voc_scene5_160x160")
    images = prepared(case.image(), golden_clip)
    trunk = golden_clip.trunk(images, AttentionRequest(keep=tuple(range(1, golden_clip.depth + 1))))
    folded = 0
    for number, tokens in trunk.kept.items():
        block = golden_clip.blocks[number - 1]
        hidden = block.mlp.c_fc(block.ln_2(tokens))
        published = block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        assert torch.equal(attention.mlp(tokens, block), published), number
        folded += torch.equal(block.mlp.c_proj(F.silu(1.702 * hidden) / 1.702), published)
    assert folded == 0  # the bits do tell the two apart


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close_and_statistics_stay_fp32(dtype, models, clips, device):
    clip = wrap_clip(models["B/16"], dtype=dtype, device=device)
    images = picture(B16, 5, 6, batch=2)
    trunk = clip.trunk(images, AttentionRequest(votes=True, ranges=((2, 4),)))
    exact = clips["B/16"].trunk(images, AttentionRequest(votes=True, ranges=((2, 4),)))
    assert trunk.tokens.dtype == clip.dtype == getattr(torch, dtype)
    assert trunk.affinity[2, 4].dtype == torch.float32
    assert trunk.votes.dtype == torch.uint8
    limit = 0.98 if dtype == "bfloat16" else 0.999
    assert F.cosine_similarity(trunk.tokens.float(), exact.tokens, dim=-1).min() > limit
    assert (trunk.affinity[2, 4] - exact.affinity[2, 4]).abs().mean() < 2e-2
    rows = clip.encode_text(["a cat"])
    assert rows.dtype == torch.float32
    assert_close(rows.norm(dim=-1), torch.ones(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda clip: clip.trunk(torch.zeros(1, 3, 33, 64)), "patch size 32"),
        (lambda clip: clip.trunk(torch.zeros(3, 64, 64)), r"\(B, 3, H, W\)"),
        (lambda clip: clip.trunk(torch.zeros(1, 3, 64, 64), AttentionRequest(ranges=((3, 9),))), "range 3..9"),
        (lambda clip: clip.trunk(torch.zeros(1, 3, 64, 64), AttentionRequest(keep=(0,))), "block 0"),
        (lambda clip: clip.run_blocks(torch.zeros(1, 5, 128), 0, 2), "blocks 0..2"),
        (lambda clip: clip.last_block(torch.zeros(1, 5, 128), "nearby"), "nearby"),
        (lambda clip: clip.trunk(torch.zeros(1, 3, 64, 64), position_rounding="int8"), "int8"),
        (lambda clip: clip.encode_masked(torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 2, dtype=bool)), "patch masks"),
    ],
)
def test_wrong_arguments(call, message, clips):
    with pytest.raises(UsageError, match=message):
        call(clips["B/32"])


def prepared(image, clip):
    size = [-(-side // clip.patch_size) * clip.patch_size for side in image.size]
    values = np.asarray(image.resize(size, 3), dtype=np.float32) / 255  # 3: bicubic
    values = (values - np.array(clip.mean, np.float32)) / np.array(clip.std, np.float32)
    return torch.from_numpy(values).permute(2, 0, 1)[None]


@pytest.mark.parametrize("case", [case for case in golden_cases("tag") if case.vocabulary == "voc"], ids=str)
def test_golden_patch_features_votes_and_affinity(case, golden_clip_on, device):
    arrays, golden_clip = case.arrays(), golden_clip_on(device)
    images = prepared(case.image(), golden_clip)
    request = AttentionRequest(votes=True, ranges=((9, 11),))
    trunk = golden_clip.trunk(images, request, position_rounding="float16_off_native")
    expected = torch.from_numpy(arrays["patch_features"])
    for mode in ("masked_local", "local"):
        features = F.normalize(golden_clip.project(golden_clip.last_block(trunk.tokens, mode)), dim=-1)[0]
        assert_close(features[-len(expected) :], expected, atol=1e-4, rtol=0)
    if "vote_mask" in arrays:
        votes = trunk.votes[0].cpu() >= 4
        differing = votes != torch.from_numpy(arrays["vote_mask"])
        assert int(differing.sum()) <= 2  # as another processor sums in another order
        affinity = trunk.affinity[9, 11][0].cpu() * votes
        error = (affinity - torch.from_numpy(arrays["affinity"])).abs()
        assert error[~differing].max() <= 1e-4


@pytest.mark.parametrize("biased", [False, True])
def test_wide_keys_of_large_images_attend_head_by_head(biased, monkeypatch, device):
    """PEARL's keys are twice as wide as its values, for which there is no fused kernel."""
    generator = torch.Generator().manual_seed(6)
    q, k = (torch.randn(2, 3, 9, 32, generator=generator).to(device) for _ in range(2))
    v = torch.randn(2, 3, 9, 16, generator=generator).to(device)
    bias = torch.randn(2, 3, 9, 9, generator=generator).to(device) if biased else None
    whole = attention.attend(q, k, v, bias)
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(attention, "UNFUSED_SCORES", 100)
    counted = lambda q, *rest, **named: calls.append(q) or fused(q, *rest, **named)  # noqa: E731
    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    assert_close(attention.attend(q, k, v, bias), whole)
    assert [one.shape[1] for one in calls] == [1, 1, 1]

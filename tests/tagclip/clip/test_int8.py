"""Linear layers of blocks in int8: close to float32, said in every record, refused where they cannot run."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tagclip import TagCLIP
from tagclip.clip import AttentionRequest, attention, int8, load_clip, wrap_clip
from tagclip.clip.int8 import Int8Layer, pick_engine
from tagclip.config import TagCLIPConfig, TagRuleConfig
from tagclip.cwr import candidate_border
from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.errors import UsageError
from tagclip.thresholds import select, tag_margins
from tagclip.vocabulary import Vocabulary
from tests.clip_models import B16, make_model
from wsss.pipeline.run_config import tagging_identity

try:
    ENGINE = pick_engine()
except UsageError as error:  # a PyTorch or a processor without int8 products
    pytestmark = pytest.mark.skip(reason=str(error))
    ENGINE = ("none", False)

SCENES, SIDES = 12, (160, 200)


@pytest.fixture(scope="module")
def golden_int8(golden_model_path):
    return load_clip(golden_model_path, device="cpu", dtype="int8")


def values(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_layer(outputs, inputs, bias=True):
    weight, offset = values(outputs, inputs, seed=1), values(outputs, seed=2) if bias else None
    return weight, offset, Int8Layer(weight, offset, ENGINE[0], reduce_range=ENGINE[1])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 64), (9, 64), (2, 3, 64), (0, 3, 64)])
def test_a_layer_is_close_to_float32(shape, bias):
    weight, offset, layer = make_layer(48, 64, bias)
    inputs = values(*shape)
    exact, found = F.linear(inputs, weight, offset), layer(inputs)
    assert (found.shape, found.dtype) == (exact.shape, torch.float32)
    assert (found - exact).norm() <= (0.03 if ENGINE[1] else 0.015) * exact.norm()


def test_rows_of_very_different_size_keep_their_precision():
    """Weights are scaled per output; a row of zeros stays zeros."""
    weight = values(4, 64, seed=1) * torch.tensor([1e-4, 1.0, 1e3, 0.0])[:, None]
    inputs = values(9, 64)
    exact, found = inputs @ weight.T, Int8Layer(weight, None, ENGINE[0], reduce_range=ENGINE[1])(inputs)
    assert not found[:, 3].any()
    assert ((found - exact).norm(dim=0)[:3] < 0.03 * exact.norm(dim=0)[:3]).all()


def test_packing_leaves_the_engine_as_it_was():
    before = torch.backends.quantized.engine
    make_layer(8, 8)
    assert torch.backends.quantized.engine == before


def test_several_threads_get_what_one_gets():
    _, _, layer = make_layer(96, 64)
    inputs = [values(rows, 64, seed=rows) for rows in range(1, 33)]
    expected = [layer(one) for one in inputs]
    fresh = make_layer(96, 64)[2]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fresh, inputs))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_int8_every_layer_is_pytorchs_to_the_last_bit(dtype):
    block = make_model(B16, quick_gelu=False).visual.transformer.resblocks[0].to(dtype).requires_grad_(False)
    tokens, width = values(2, 9, B16.width).to(dtype), B16.width
    joint = block.attn.in_proj_weight, block.attn.in_proj_bias
    projected = F.linear(tokens, *joint)
    found = torch.cat([attention.merge_heads(part) for part in attention.qkv_from_norm(tokens, block)], -1)
    assert torch.equal(found, projected)
    normed = block.ln_1(tokens)
    assert torch.equal(attention.values(tokens, block), F.linear(normed, *(part[2 * width :] for part in joint)))
    assert torch.equal(attention.out_project(tokens, block), block.attn.out_proj(tokens))
    assert torch.equal(attention.mlp(tokens, block), block.mlp(block.ln_2(tokens)))


def test_model_is_float32_but_for_the_blocks_products(golden_clip, golden_int8):
    assert (golden_clip.number_format, golden_int8.number_format) == ("float32", "int8")
    assert golden_int8.dtype == torch.float32
    assert golden_int8.weights_digest == golden_clip.weights_digest
    prompts = ["a photo of a cat."]
    assert torch.equal(golden_int8.encode_text(prompts), golden_clip.encode_text(prompts))
    images = values(2, 3, 5 * golden_clip.patch_size, 6 * golden_clip.patch_size)
    request = AttentionRequest(votes=True, ranges=((2, 4),))
    exact, found = golden_clip.trunk(images, request), golden_int8.trunk(images, request)
    assert not torch.equal(found.tokens, exact.tokens)
    assert (found.tokens - exact.tokens).norm() < 0.03 * exact.tokens.norm()
    assert (found.affinity[2, 4] - exact.affinity[2, 4]).abs().max() < 0.02
    likeness = F.cosine_similarity(
        golden_int8.project(golden_int8.last_block(found.tokens, "local")),
        golden_clip.project(golden_clip.last_block(exact.tokens, "local")), dim=-1,
    )  # fmt: skip
    assert likeness.min() > 0.99


def test_all_four_layers_of_every_block_are_packed(monkeypatch):
    clip, calls = wrap_clip(make_model(B16), device="cpu", dtype="int8"), []
    original = Int8Layer.__call__
    monkeypatch.setattr(Int8Layer, "__call__", lambda layer, inputs: calls.append(1) or original(layer, inputs))
    clip.trunk(values(1, 3, 2 * clip.patch_size, 3 * clip.patch_size))
    assert len(calls) == 4 * (clip.depth - 1)


def test_gradients_and_scaled_rows_take_the_float32_weights(golden_clip, golden_int8):
    tokens = values(1, 7, golden_clip.width)
    factors = torch.full((golden_clip.width,), 0.5)
    packed, plain = golden_int8.blocks[0], golden_clip.blocks[0]
    with torch.enable_grad():
        found, exact = (attention.mlp(tokens.clone().requires_grad_(), block) for block in (packed, plain))
    assert torch.equal(found, exact)
    normed = attention.layer_norm(tokens, packed.ln_1)
    exact = F.linear(normed, plain.attn.in_proj_weight, plain.attn.in_proj_bias)[..., 2 * golden_clip.width :]
    torch.testing.assert_close(attention.values(tokens, packed), exact)
    scaled, whole = (attention.mlp(tokens, packed, output_scale=one) for one in (factors, None))
    bias = plain.mlp.c_proj.bias
    assert (scaled - bias - 0.5 * (whole - bias)).norm() < 0.03 * (whole - bias).norm()


def test_tags_of_drawn_scenes_stay():
    draw = SceneRenderer(SceneConfig(side=SIDES, object_side=(60, 110), objects=(1, 2)), seed=11)
    scenes = [draw(number).image for number in range(SCENES)]
    rule = TagRuleConfig()
    tags, scores = {}, {}
    for dtype in ("float32", "int8"):
        tagger = TagCLIP(load_clip("demo", device="cpu", dtype=dtype), Vocabulary.named("voc"))
        scores[dtype] = np.stack([result.scores for scene in scenes for result in tagger([scene])])
        tags[dtype] = select(scores[dtype], rule)
    assert (tags["float32"] == tags["int8"]).all(axis=1).sum() >= SCENES - 1
    assert np.abs(scores["float32"] - scores["int8"]).mean() < 0.01


def test_refused_on_an_accelerator():
    with pytest.raises(UsageError, match=r"--dtype int8: runs on a CPU only, not on cuda:0; use bfloat16 there"):
        int8.pack_blocks([], torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("engines", "right", "message"),
    [((), True, "built without"), (int8.ENGINES, False, "are wrong on this processor")],
)
def test_refused_without_products_that_are_right(engines, right, message, monkeypatch):
    monkeypatch.setattr(int8, "ENGINES", engines)
    monkeypatch.setattr(int8, "_is_right", lambda *args: right)
    monkeypatch.setattr(int8, "pick_engine", pick_engine.__wrapped__)
    with pytest.raises(UsageError, match=rf"--dtype int8: no int8 products here \(.*{message}\); use float32 or bf"):
        wrap_clip(make_model(B16), device="cpu", dtype="int8")


def test_refused_where_pytorch_has_dropped_a_function(monkeypatch):
    monkeypatch.delattr(torch, "quantize_per_channel")
    with pytest.raises(UsageError, match=r"no int8 products here .*quantize_per_channel"):
        pick_engine.__wrapped__()


def test_activations_of_7_bits_where_two_products_overflow(monkeypatch):
    original = int8._is_right
    monkeypatch.setattr(int8, "_is_right", lambda engine, reduce: reduce and original(engine, reduce))
    assert pick_engine.__wrapped__()[1] is True


@pytest.fixture(scope="module")
def scenes():
    draw = SceneRenderer(SceneConfig(side=SIDES, object_side=(60, 110), objects=(1, 2)), seed=12)
    return [draw(number).image for number in range(4)]


@cache
def demo_clip(dtype):
    return load_clip("demo", device="cpu", dtype=dtype)


@pytest.fixture(scope="module")
def demo_scores(tmp_path_factory):
    texts = tmp_path_factory.mktemp("texts")

    def scores(scenes, dtype, **settings):
        config = replace(TagCLIPConfig(), batch_size=4, **settings)
        tagger = TagCLIP(demo_clip(dtype), Vocabulary.named("voc"), config=config, cache_dir=texts)
        return np.array([result.scores for result in tagger(scenes)]), tagger

    return scores


@pytest.mark.parametrize("scorer", ["patches", "global", "cdul"])
def test_images_near_other_tags_are_scored_again_in_float32(scenes, demo_scores, scorer):
    exact, _ = demo_scores(scenes, "float32", scorer=scorer)
    quick, tagger = demo_scores(scenes, "int8", scorer=scorer, recheck=0.0)
    assert (quick != exact).any(axis=1).all()
    margins = tag_margins(quick, tagger.config.rule)
    if scorer == "patches":
        stages = [tagger(scene, details=True).details for scene in scenes]
        borders = [candidate_border(torch.tensor(one["refined"])[None], 0.5).item() for one in stages]
        distances = [np.abs(one["local"] - border).min() for one, border in zip(stages, borders, strict=True)]
        margins = np.minimum(margins, distances)
    assert len(set(margins)) == len(scenes)
    for count in range(1, len(scenes) + 1):
        near = margins <= np.sort(margins)[count - 1]
        found, _ = demo_scores(scenes, "int8", scorer=scorer, recheck=float(np.sort(margins)[count - 1]) * (1 + 1e-6))
        np.testing.assert_allclose(found[near], exact[near], rtol=0, atol=1e-6)  # in a smaller batch
        np.testing.assert_array_equal(found[~near], quick[~near])


def test_a_recheck_of_float32_changes_nothing(scenes, demo_scores):
    np.testing.assert_array_equal(*(demo_scores(scenes, "float32", recheck=one)[0] for one in (0.0, 9.0)))


@pytest.mark.parametrize("margin", [-1.0, float("inf"), float("nan")])
def test_margins_that_are_none(margin):
    with pytest.raises(UsageError, match=r"recheck .* must be a number of 0 or more"):
        TagCLIPConfig(recheck=margin)


def test_a_recheck_is_a_setting_of_int8_runs_alone():
    config = TagCLIPConfig(recheck=0.01)
    for dtype, expected in (("float32", None), ("bfloat16", None), ("int8", 0.01)):
        assert tagging_identity(config, dtype=dtype, by_student=False).get("recheck") == expected
    assert "recheck" not in tagging_identity(config, dtype="int8", by_student=True)


def test_tags_of_int8_are_float32s_in_nearly_all_scenes(demo_scores):
    """In 1.8 % of 600 such scenes they are not, where int8 alone changes 3.7 %; other processors round otherwise."""
    draw = SceneRenderer(SceneConfig(side=SIDES, object_side=(60, 110), objects=(1, 3)), seed=21)
    images = [draw(number).image for number in range(60)]
    tags = []
    for dtype in ("float32", "int8"):
        scores, tagger = demo_scores(images, dtype)
        tags.append(select(scores, tagger.config.rule.for_classes(tagger.vocabulary.names)))
    assert (tags[0] != tags[1]).any(axis=1).sum() <= 3

"""ExCEL part by part: surgery, enrichment, affinity, its quirks, and as a source of masks."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tagclip.boxes import box_masks
from tagclip.clip import AttentionRequest
from tagclip.errors import UsageError
from tests.golden import golden_text
from tests.golden_more import more_arrays, tensor
from tests.wsss.runs import VOCABULARY
from wsss.config import ExcelConfig, MaskConfig
from wsss.maps.affinity import refine_cams, sinkhorn
from wsss.maps.excel_source import ExcelSource, published_input
from wsss.maps.gradcam_source import GradCamSource
from wsss.maps.mean_source import MeanSource
from wsss.maps.surgery import normalise_tokens, patch_text_maps, self_attention, surgery_tokens
from wsss.maps.text_enrichment import attribute_bank, enrich_rows, read_attributes
from wsss.masks.generator import MaskGenerator
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import MaskRunConfig

PLAIN = MaskConfig.from_dict({"refiner": "none", "confidence": None})


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def rgb():
    return np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)


@pytest.fixture
def sentences(tmp_path):
    path = tmp_path / "attributes.yaml"
    path.write_text("cat: [it has whiskers, it has a tail]\nbird:\n- it has wings\n- it has a beak\n- it can fly\n")
    return path


def excel(**changes):
    return dataclasses.replace(PLAIN, excel=dataclasses.replace(PLAIN.excel, **changes))


@pytest.mark.parametrize("name", ["bank", "bank_near", "bank20", "bank30"])
def test_recorded_rows(name):
    recorded = {**more_arrays("more_synthetic"), **more_arrays("excel_text")}
    text = golden_text("cam")
    rows = enrich_rows(
        tensor(text["voc"]), tensor(text["voc_background"]), tensor(recorded[name]), ExcelConfig(drop_rounds_down=True)
    )
    expected = recorded[{"bank_near": "rows_near"}.get(name, f"rows_{name}")]
    assert np.abs(rows.numpy() - expected).max() <= 1e-6


def test_quirk_one_attribute_fewer_is_dropped():
    rows, background = F.normalize(noise(3, 8), dim=-1), F.normalize(noise(2, 8, seed=1), dim=-1)
    bank = noise(8, 30, seed=2)

    def by_hand(dropped):
        logits = rows @ bank
        for row in logits:
            row[row.argsort()[:dropped]] = -torch.inf
        return F.normalize(rows + logits.softmax(1) @ bank.T, dim=-1)

    for config, dropped in ((ExcelConfig(), 3), (ExcelConfig(drop_rounds_down=True), 2)):
        found = enrich_rows(rows, background, bank, config)
        assert torch.allclose(found[:3], by_hand(dropped), atol=1e-6)
        assert torch.allclose(found[3:], background, atol=1e-6)


@pytest.mark.parametrize("count", [1, 5, 10])
def test_few_attributes_are_all_kept(count):
    """The published code drops every attribute where it should drop none: NaN."""
    rows = F.normalize(noise(3, 8), dim=-1)
    found = enrich_rows(rows, rows[:0], noise(8, count, seed=2), ExcelConfig(drop_rounds_down=True))
    assert found.isfinite().all()


def test_an_empty_bank_changes_nothing():
    rows, background = F.normalize(noise(3, 8), dim=-1), F.normalize(noise(2, 8, seed=1), dim=-1)
    found = enrich_rows(rows, background, torch.zeros(8, 40), ExcelConfig())
    assert torch.allclose(found, torch.cat([rows, background]), atol=1e-6)


def test_a_low_temperature_takes_the_nearest_attribute():
    rows, bank = F.normalize(noise(3, 8), dim=-1), noise(8, 40, seed=2)
    found = enrich_rows(rows, rows[:0], bank, ExcelConfig(temperature=1e-4))
    nearest = bank.T[(rows @ bank).argmax(1)]
    assert torch.allclose(found, F.normalize(rows + nearest, dim=-1), atol=1e-5)


def test_maps_by_hand():
    features, rows = noise(13, 8), F.normalize(noise(5, 8, seed=1), dim=-1)
    weights = (2 * features[0] @ rows.T).softmax(0)
    products = features[:, None] * rows[None] * (weights / weights.mean())[None, :, None]
    scores = (products - products.mean(dim=1, keepdim=True)).sum(-1).T
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    found = patch_text_maps(features, rows)
    assert torch.allclose(found, ((scores - low) / (high - low))[:, 1:], atol=1e-5)
    assert found.shape == (5, 12)
    assert 0 <= found.min() <= found.max() <= 1


def test_mixtures_of_heads_by_hand(monkeypatch):
    q, k, v = (noise(3, 10, 4, seed=seed) for seed in range(3))
    maps = sum((one @ one.transpose(1, 2) / 2).softmax(-1) for one in (q, k, v)) / 3
    assert torch.allclose(maps.sum(-1), torch.ones(3, 10))
    for part_bytes in (2**20, 4 * 10 * 3):
        monkeypatch.setattr("wsss.maps.parts.PART_BYTES", part_bytes)
        mixtures = {"each": maps, "mean": maps.mean(0, keepdim=True), "sum": maps.sum(0, keepdim=True)}
        for mixing, used in mixtures.items():
            expected = (used @ v).transpose(0, 1).flatten(1)
            assert torch.allclose(self_attention(q, k, v, mixing), expected, atol=1e-5)


def test_second_stream_by_hand(golden_clip, oracle_clip, rgb):
    source = ExcelSource(golden_clip, VOCABULARY, config=excel(blocks=2, heads="each"))
    image = source.prepare(rgb)
    trunk = source.trunk(image[None])
    found = source.features(trunk, 0)
    x, _ = oracle_clip.embed(image, "none")
    for number in range(1, 11):
        x, _ = oracle_clip.visual_block(x, number)
    second = x
    for number in (11, 12):
        prefix = oracle_clip.visual_prefix(number)
        parts = oracle_clip.qkv(oracle_clip._norm(x, prefix + ".ln_1"), prefix, oracle_clip.heads)
        maps = sum((one @ one.transpose(1, 2) / 8).softmax(-1) for one in parts) / 3
        second = second + oracle_clip.out_proj(maps @ parts[2], prefix)
        x, _ = oracle_clip.visual_block(x, number)
    tokens = oracle_clip.project(torch.cat([x[:1], second[1:]]))
    assert (found - F.normalize(tokens, dim=-1)).abs().max() <= 1e-5
    inputs = {number: kept[0] for number, kept in trunk.kept.items()}
    published = normalise_tokens(surgery_tokens(golden_clip, inputs, trunk.tokens[0], source.config.excel), True)
    assert torch.allclose(published.norm(dim=0), torch.ones(golden_clip.embed_dim))  # quirk: over the tokens


def test_quirk_attention_of_later_blocks_is_summed_over_heads(golden_clip, rgb):
    plain = ExcelSource(golden_clip, VOCABULARY, config=PLAIN)
    published = ExcelSource(golden_clip, VOCABULARY, config=excel(affinity_sums_heads=True))
    image = plain.prepare(rgb)[None]
    request = AttentionRequest(ranges=tuple((number, number) for number in range(7, 13)))
    maps = [golden_clip.trunk(image, request).affinity[number, number][0] for number in range(7, 13)]
    assert torch.allclose(plain.mean_attention(plain.trunk(image), 0), sum(maps) / 6, atol=1e-6)
    summed = (maps[0] + golden_clip.heads * sum(maps[1:])) / 6
    assert torch.allclose(published.mean_attention(published.trunk(image), 0), summed, atol=1e-6)


def test_affinity_is_doubly_stochastic_before_it_is_squared():
    attention = noise(30, 30).softmax(-1)
    spread = sinkhorn(attention, 30)
    matrix = spread(torch.eye(30))
    assert torch.allclose(matrix.sum(0), torch.ones(30), atol=1e-4)
    assert torch.allclose(matrix.sum(1), torch.ones(30), atol=1e-4)


def test_recorded_maps_at_the_border():
    """Boxes that end at the last row and column: as published these are never inside."""
    recorded = more_arrays("more_synthetic")
    maps = tensor(recorded["excel_maps"])[tensor(recorded["excel_classes"])]
    spread = sinkhorn(tensor(recorded["excel_attention7to12_mean"]), 3)
    boxes = box_masks(maps, 0.79, clip_last=True)
    refined = refine_cams(maps, boxes, spread)
    assert np.abs(refined.numpy() - recorded["excel_refined"]).max() <= 1e-5
    x0, y0, x1, y1 = recorded["excel_boxes_class1"][0]
    expected = torch.zeros(12, 15, dtype=torch.bool)
    expected[y0:y1, x0:x1] = True
    assert any(torch.equal(one, expected) for one in boxes)
    assert not torch.equal(box_masks(maps, 0.79), boxes)


def test_published_input():
    rgb = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    found = published_input(rgb, 320)
    assert found.shape == (3, 320, 320)
    flat = published_input(np.full((50, 80, 3), 200, np.uint8), 32)
    expected = (200 - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
    assert flat.mean((1, 2)).numpy() == pytest.approx(expected, rel=1e-5)


def test_attribute_files(sentences, golden_clip, tmp_path):
    found = read_attributes(sentences)
    assert found["bird"] == ["it has wings", "it has a beak", "it can fly"]
    bank = attribute_bank(golden_clip, found, {"cat": "cat", "bird": "bird avian"}, ExcelConfig(attribute_count=3))
    assert bank.shape == (golden_clip.embed_dim, 3)
    again = attribute_bank(golden_clip, found, {"cat": "cat", "bird": "bird avian"}, ExcelConfig(attribute_count=3))
    assert torch.equal(bank, again)
    every = attribute_bank(golden_clip, found, {"cat": "cat", "bird": "bird avian"}, ExcelConfig())
    prompts = ["a clean origami cat. it has whiskers", "a clean origami bird avian. it can fly"]
    features = golden_clip.encode_text(prompts)
    for feature in features:  # as many centres as sentences: each is one
        assert (every.T - feature).abs().amax(1).min() <= 1e-5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat: it has whiskers", "'cat' needs a list"),
        ("cat: [1, 2]", "'cat' needs a list"),
        ("cat: []", "'cat' needs a list"),
        ("- a\n- b", "give a list of sentences under the name"),
        ("cat: [unclosed", "not YAML"),
        ("lion: [it roars]", "'lion' is no class"),
        ("!!python/object/apply:os.system [ls]", "not YAML"),
    ],
)
def test_bad_attribute_files(golden_clip, tmp_path, text, message):
    path = tmp_path / "attributes.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        ExcelSource(golden_clip, VOCABULARY, config=excel(attributes=str(path)))


def test_missing_attribute_file_and_blocks(golden_clip, tmp_path):
    with pytest.raises(UsageError, match=r"attributes .*none\.yaml: No such file"):
        ExcelSource(golden_clip, VOCABULARY, config=excel(attributes=str(tmp_path / "none.yaml")))
    with pytest.raises(UsageError, match=r"masks\.excel\.blocks 12 is not in 1\.\.11"):
        ExcelSource(golden_clip, VOCABULARY, config=excel(blocks=12))


def test_enriched_texts_give_other_maps(golden_clip, sentences, rgb):
    plain = MaskGenerator(ExcelSource(golden_clip, VOCABULARY, config=PLAIN))(rgb, ["cat", "bird"])
    told = ExcelSource(golden_clip, VOCABULARY, config=excel(attributes=str(sentences), attribute_count=4))
    assert (told.rows.norm(dim=-1) - 1).abs().max() <= 1e-6
    assert np.abs(MaskGenerator(told)(rgb, ["cat", "bird"]).raw - plain.raw).max() > 1e-4


def test_tags_that_are_none_are_background(golden_clip, rgb):
    result = MaskGenerator(ExcelSource(golden_clip, VOCABULARY, config=PLAIN))(rgb, [])
    assert result.maps.shape == (0, 6, 8)
    assert not result.mask.any()


def test_maps_do_not_depend_on_the_other_tags_or_images(golden_clip, rgb):
    source = ExcelSource(golden_clip, VOCABULARY, config=PLAIN)
    image = source.prepare(rgb)
    both = source.maps_from_trunk(source.trunk(torch.stack([image, image.flip(-1)])), [[2, 0], [1]])
    alone = source.maps_from_trunk(source.trunk(image[None]), [[0]])[0]
    assert np.abs(both[0].maps[1] - alone.maps[0]).max() <= 1e-5
    with pytest.raises(UsageError, match="pass `request`"):
        source.maps_from_trunk(golden_clip.trunk(image[None]), [[0]])


def test_in_the_mean_of_sources(golden_clip, rgb):
    parts = [GradCamSource(golden_clip, VOCABULARY, config=PLAIN), ExcelSource(golden_clip, VOCABULARY, config=PLAIN)]
    fused = MaskGenerator(MeanSource(parts))(rgb, ["cat", "bird"])
    alone = [MaskGenerator(part)(rgb, ["cat", "bird"]) for part in parts]
    assert np.abs(fused.maps - sum(one.maps for one in alone) / 2).max() < 1e-4


def test_presets_differ_in_quirks_only():
    reference, default = MaskConfig.preset("reference").excel, MaskConfig.preset().excel
    differing = {name for name in vars(default) if getattr(reference, name) != getattr(default, name)}
    assert differing == {
        "heads", "normalise_over_tokens", "affinity", "affinity_sums_heads", "drop_rounds_down"
    }  # fmt: skip
    assert dataclasses.replace(reference.affinity, clip_boxes=False) == default.affinity


def test_recipes_make_it_and_runs_know_its_settings(golden_clip, sentences):
    def recipe(method, **masks):
        return Recipe.resolve(MaskRunConfig(vocabulary="cat,bird", method=method, masks=masks))

    assert isinstance(recipe("excel").maps(golden_clip), ExcelSource)
    with pytest.raises(UsageError, match=r"masks\.excel\.published_input 320: in a run"):
        recipe("excel", excel={"published_input": 320}).maps(golden_clip)
    assert isinstance(recipe(("cam", "excel")).maps(golden_clip), MeanSource)
    told = recipe("excel", excel={"attributes": str(sentences)}).identity()
    before = told["masks"]["excel"]["attributes"]
    sentences.write_text("cat: [it purrs]\n")
    assert recipe("excel", excel={"attributes": str(sentences)}).identity()["masks"]["excel"]["attributes"] != before
    # Runs by another method know nothing of it, as those of earlier versions.
    plain = recipe("cam").identity()["masks"]
    assert "excel" not in plain
    assert "par" not in plain
    assert "centre_per_dilation" not in plain["pamr"]
    assert "par" in recipe("cam", refiner="par").identity()["masks"]

"""CLIPtrase: correlations, clusters and the decision on regions, on small arrays."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from tests.golden_more import trunk_for
from wsss.dense import dense_features
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.dense.logits import PatchField, WordMaps
from wsss.dense.regions import (
    RegionField,
    cluster_patches,
    correlation_factors,
    mean_logits,
    patch_correlations,
    region_maps,
    region_of_pixels,
    vote_shares,
)
from wsss.dense.strategies import cliptrase
from wsss.dense.strategy import get_strategy

ONE = ("a photo of a {}.",)
CLASSES = Vocabulary(["cat", "dog", "car"], background=["grass", "sky"])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def rgb():
    pixels = np.random.default_rng(0).integers(0, 60, (96, 128, 3), dtype=np.uint8)
    pixels[20:70, 30:90] += 150
    return pixels


def maps_of(cosines, labels=None):
    count = len(cosines)
    labels = torch.arange(count) if labels is None else torch.tensor(labels)
    return WordMaps(cosines, torch.eye(count), labels, *cosines.shape[1:])


def test_correlations_by_hand(monkeypatch):
    q, k, v = (noise(3, 10, 4, seed=seed) for seed in range(3))
    cosines = sum(F.normalize(part, dim=-1) @ F.normalize(part, dim=-1).transpose(1, 2) for part in (q, k, v)) / 3
    w = cosines.mean(0)
    factors = correlation_factors(q, k, v)
    assert torch.allclose(factors @ factors.T, w, atol=1e-6)
    assert torch.allclose((factors @ factors.T).diagonal(), torch.ones(10))
    expected = (w[1:, 1:] - w[0, 1:]).clamp(min=0)
    for part_bytes in (2**20, 4 * 9 * 2):
        monkeypatch.setattr("wsss.maps.parts.PART_BYTES", part_bytes)
        assert torch.allclose(patch_correlations(factors), expected, atol=1e-6)


def test_planted_clusters_are_found():
    blocks = torch.block_diag(torch.ones(20, 20), torch.ones(15, 15), torch.eye(3))
    clusters = cluster_patches(blocks, 0.7, 3)
    assert clusters.tolist() == [0] * 20 + [1] * 15 + [-1] * 3


def test_regions_follow_their_clusters():
    # A 6 x 8 grid whose left and right halves are alike.
    side = (torch.arange(48) % 8 < 4).float()
    correlations = (side[:, None] == side).float()
    clusters = cluster_patches(correlations, 0.7, 3)
    smooth = region_maps(correlations, clusters, (6, 8))
    assert smooth.shape == (2, 24, 32)
    regions = region_of_pixels(smooth, 96, 128)
    assert (regions == (torch.arange(128) >= 64).long()).float().mean() > 0.95


def test_means_and_votes_by_hand(monkeypatch):
    cosines, regions = noise(4, 6, 8), (torch.arange(48).view(6, 8) % 3)
    maps = maps_of(cosines, [2, 2, 5, 1])
    best = maps.labels[cosines.argmax(0)]
    for chunk in (2**20, 1):
        monkeypatch.setattr("wsss.dense.regions.CHUNK_BYTES", chunk)
        table, shares = mean_logits(maps, regions), vote_shares(maps, regions)
        for region in range(3):
            inside = regions == region
            assert torch.allclose(table[:, region], cosines[:, inside].mean(1), atol=1e-6)
            votes = best[inside].bincount(minlength=6)
            assert maps.labels[shares[:, region].argmax()] == votes.argmax()
            assert float(shares[0, region]) == pytest.approx(float(votes[2]) / float(inside.sum()))
            assert shares[1, region] == 0  # the first word of a label speaks for all of them
    assert torch.equal(RegionField(regions, table).rows(2, 4, slice(1, 3)), table[1:3][:, regions[2:4]])


def test_of_equal_votes_the_first_wins():
    cosines = torch.zeros(3, 2, 2)
    cosines[2, 0] = cosines[1, 1] = 1
    shares = vote_shares(maps_of(cosines), torch.zeros(2, 2, dtype=torch.long))
    assert int(shares[:, 0].argmax()) == 1


def test_one_cluster_takes_the_majority(golden_clip, rgb):
    image = noise(3, 96, 128)
    strategy = get_strategy("cliptrase", {"eps": 100.0, "decision": "vote"})
    trunk = trunk_for(golden_clip, image[None], strategy)
    maps = WordMaps(noise(4, 6, 8), torch.eye(4), torch.arange(4), 96, 128)
    field = cliptrase.decide(golden_clip, trunk, maps, strategy.options)
    assert isinstance(field, RegionField)
    majority = PatchField(maps.cosines, 96, 128).rows(0, 96).argmax(0).flatten().mode().values
    assert (field.rows(0, 96).argmax(0) == majority).all()


def test_all_noise_leaves_the_pixels_alone(golden_clip, rgb):
    options = {"eps": 1e-6, "min_samples": 40}
    one = {"strategy": "cliptrase", "templates": ONE}
    noisy = DenseSegmenter(golden_clip, CLASSES, DenseConfig.from_dict({**one, "options": options}))(rgb)
    pixels = DenseSegmenter(golden_clip, CLASSES, DenseConfig.from_dict({**one, "options": {"regions": False}}))(rgb)
    assert np.array_equal(noisy.labels, pixels.labels)
    assert np.array_equal(noisy.confidence, pixels.confidence)


def test_without_regions_it_is_a_plain_strategy_bit_for_bit(golden_clip, rgb):
    plain = dataclasses.replace(get_strategy("cliptrase"), decide=None)
    one = {"strategy": "cliptrase", "templates": ONE, "options": {"regions": False}}
    made = DenseSegmenter(golden_clip, CLASSES, DenseConfig.from_dict(one))
    off = made(rgb)
    view = made.view(rgb)
    (features,), _ = made.features(view, [plain])
    assert torch.equal(features[0], dense_features(golden_clip, rgb, "cliptrase"))
    bare = made.labels(view, features, made.names(range(3)), rgb, plain)
    assert np.array_equal(off.labels, bare.labels.numpy())
    assert np.array_equal(off.confidence, bare.confidence.numpy())


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_labels_are_regions(golden_clip, rgb, mode):
    settings = {"strategy": "cliptrase", "templates": ONE, "mode": mode, "crop": 64, "stride": 64}
    result = DenseSegmenter(golden_clip, CLASSES, DenseConfig.from_dict(settings))(rgb)
    pixels = DenseSegmenter(
        golden_clip, CLASSES, DenseConfig.from_dict({**settings, "options": {"regions": False}})
    )(rgb)
    assert result.labels.shape == rgb.shape[:2]
    assert len(np.unique(result.confidence)) < len(np.unique(pixels.confidence)) / 10


def test_class_prior_flips_a_near_tie(golden_clip):
    image = noise(3, 96, 128)
    strategy = get_strategy("cliptrase", {"class_prior": True, "regions": False})
    trunk = trunk_for(golden_clip, image[None], strategy)
    rows = F.normalize(noise(2, golden_clip.embed_dim), dim=-1)
    prior = cliptrase.class_logits(golden_clip, trunk, rows)
    liked, other = (0, 1) if prior[0] > prior[1] else (1, 0)
    cosines = torch.full((2, 6, 8), 0.2)
    cosines[other] += 0.001 * (1 if prior[liked] > 0 else -1)
    maps = WordMaps(cosines, rows, torch.arange(2), 96, 128)
    field = cliptrase.decide(golden_clip, trunk, maps, strategy.options)
    assert (field.rows(0, 96).argmax(0) == liked).all()
    assert cliptrase.decide(golden_clip, trunk, maps, cliptrase.CliptraseOptions(regions=False)) is None


def test_density_follows_the_published_points():
    options = cliptrase.CliptraseOptions()
    for count, eps, min_samples in ((196, 0.7, 3), (441, 1.1, 7)):
        found = cliptrase.density(options, count)
        assert found[0] == pytest.approx(eps, abs=0.06)
        assert found[1] == min_samples
    assert cliptrase.density(get_strategy("cliptrase", preset="reference").options, 300) == (0.7, 3)


def test_presets_and_bad_options(golden_clip):
    reference, default = (get_strategy("cliptrase", preset=name).options for name in ("reference", "default"))
    differing = {name for name in vars(default) if getattr(reference, name) != getattr(default, name)}
    assert differing == {"decision", "eps", "min_samples", "dino_positions"}
    with pytest.raises(UsageError, match=r'decision=.median.; choose "mean" or "vote"'):
        dense_features(golden_clip, noise(3, 32, 32), "cliptrase", decision="median")
    assert cliptrase.needs(default, 12).keep == (11,)
    assert cliptrase.needs(default, 24).keep == (23,)

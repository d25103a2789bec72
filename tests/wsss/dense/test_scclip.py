"""SC-CLIP part by part: what each computes on small arrays, its switches and its quirks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tagclip.clip import DINO_POSITIONS, AttentionRequest, Grid
from tagclip.errors import UsageError
from tests.golden_more import more_arrays, tensor
from wsss.dense import dense_features
from wsss.dense.anomalies import find_outliers, outlier_scores, repair_outliers
from wsss.dense.calibration import attend_alike, average_alike, unit_rows
from wsss.dense.strategies import scclip
from wsss.dense.strategy import get_strategy

PARTS = ("repair", "feature_calibration", "attention_calibration", "post_calibration", "multi_level")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def picture():
    """9 x 13 patches: neither square nor the native grid."""
    return noise(3, 144, 208)


def test_recorded_scores_and_repairs():
    recorded = more_arrays("more_synthetic")
    tokens = tensor(recorded["sc_tokens"])
    scores = outlier_scores(tokens)
    assert np.abs(scores.numpy() / recorded["sc_lof"] - 1).max() <= 1e-5
    assert find_outliers(scores).tolist() == recorded["sc_outliers"].tolist()
    for places, expected in (("sc_outliers", "sc_repaired"), ("sc_block", "sc_block_repaired")):
        repaired = repair_outliers(tokens, tensor(recorded[places]), 9, 13)
        assert np.abs(repaired.numpy() - recorded[expected]).max() <= 1e-5


def test_a_planted_token_is_found():
    tokens = noise(196, 16)
    tokens[57] += 20
    assert 57 in find_outliers(outlier_scores(tokens)).tolist()


def test_scores_by_hand():
    tokens = noise(50, 8)
    squared = (tokens[:, None] - tokens[None]).square().sum(-1)
    reach, order = squared.sort(dim=1)
    expected = (reach[:, 5:6] / reach[:, 5][order[:, 1:6]]).mean(dim=1)
    assert torch.allclose(outlier_scores(tokens, 5), expected, rtol=1e-5)


def test_a_flat_picture_has_no_outliers():
    flat = torch.ones(60, 8)
    assert outlier_scores(flat).tolist() == [1.0] * 60
    assert not len(find_outliers(outlier_scores(flat)))
    # As published the scores are NaN, which no token is above.
    assert outlier_scores(flat, floor=0.0).isnan().all()
    assert not len(find_outliers(outlier_scores(flat, floor=0.0)))
    half = torch.cat([torch.ones(40, 8), noise(20, 8)])
    assert outlier_scores(half).isfinite().all()
    assert outlier_scores(noise(1, 8)).tolist() == [1.0]


def test_repair_is_the_mean_of_the_neighbours():
    tokens = torch.arange(20.0)[:, None].repeat(1, 2)  # 4 x 5
    repaired = repair_outliers(tokens, torch.tensor([7]), 4, 5)
    assert repaired[7, 0] == pytest.approx((1 + 2 + 3 + 6 + 8 + 11 + 12 + 13) / 8)
    corner = repair_outliers(tokens, torch.tensor([0]), 4, 5)
    assert corner[0, 0] == pytest.approx((1 + 5 + 6) / 3)
    both = repair_outliers(tokens, torch.tensor([7, 8]), 4, 5)  # an outlier is no neighbour
    assert both[7, 0] == pytest.approx((1 + 2 + 3 + 6 + 11 + 12 + 13) / 7)
    everything = repair_outliers(tokens, torch.arange(20), 4, 5)
    assert torch.equal(everything, tokens)


def test_quirk_places_by_the_grids_height():
    tokens = torch.arange(20.0)[:, None] ** 2
    # Patch 7 of 4 x 5 is row 1, column 2; by the height it is row 1, column 3: patch 8.
    wrong = repair_outliers(tokens, torch.tensor([7]), 4, 5, rows_by_height=True)
    assert (wrong != tokens).flatten().nonzero().tolist() == [[8]]
    square = torch.arange(16.0)[:, None] ** 2
    one = torch.tensor([6])
    assert torch.equal(repair_outliers(square, one, 4, 4, rows_by_height=True), repair_outliers(square, one, 4, 4))
    with pytest.raises(UsageError, match="outside the grid of 4 x 5"):
        repair_outliers(tokens, torch.tensor([19]), 4, 5, rows_by_height=True)


def test_calibration_by_likeness_of_nothing_changes_nothing():
    values, unlike = noise(30, 8), torch.eye(30)
    assert torch.allclose(average_alike(values, unlike, 0.4), values, rtol=1e-5)


def test_calibration_by_hand(monkeypatch):
    values, unit = noise(40, 8), unit_rows(noise(40, 4, seed=1))
    likeness = unit @ unit.T
    weights = torch.where(likeness < 0.4, 0.0, likeness)
    averaged = weights / (weights.sum(1, keepdim=True) + 1e-6) @ values
    logits = (likeness - likeness.mean()) * 3
    attended = logits.masked_fill(logits < 0, -torch.inf).softmax(-1) @ values
    for part_bytes in (2**20, 4 * 40 * 7):  # at once, and in parts of seven rows
        monkeypatch.setattr("wsss.maps.parts.PART_BYTES", part_bytes)
        assert torch.allclose(average_alike(values, unit, 0.4), averaged, atol=1e-6)
        assert torch.allclose(attend_alike(values, unit, 3.0), attended, atol=1e-6)
    ones = torch.ones(40, 1)
    assert torch.allclose(attend_alike(ones, unit, 3.0), ones)  # rows of weights sum to 1


def test_all_off_is_key_key_attention_bit_for_bit(golden_clip, picture):
    off = dense_features(golden_clip, picture, "scclip", **dict.fromkeys(PARTS, False))
    assert torch.equal(off, dense_features(golden_clip, picture, "naclip", std=0.0))


@pytest.mark.parametrize("part", PARTS)
def test_every_part_changes_something(golden_clip, picture, part):
    full = dense_features(golden_clip, picture, "scclip")
    without = dense_features(golden_clip, picture, "scclip", **{part: False})
    assert full.shape == (9 * 13, golden_clip.embed_dim)
    assert (without - full).abs().max() > 1e-4


def test_levels_and_blocks_follow_the_depth():
    assert scclip.blocks(scclip.ScclipOptions(), 12) == (9, 4, range(4, 11))
    assert scclip.blocks(scclip.ScclipOptions(), 24) == (18, 8, range(8, 21))
    assert scclip.needs(scclip.ScclipOptions(), 12).keep == (5, 6, 7, 8, 9, 10, 11)
    assert scclip.needs(scclip.ScclipOptions(multi_level=False), 12).keep == (5, 10)


def test_the_presets_differ_in_quirks_only():
    reference, default = (get_strategy("scclip", preset=name).options for name in ("reference", "default"))
    differing = {name for name in vars(default) if getattr(reference, name) != getattr(default, name)}
    assert differing == {"distance_floor", "rows_by_height", "dino_positions"}


def test_a_picture_of_one_colour_is_finite(golden_clip):
    for shape in ((3, 96, 96), (3, 16, 32)):
        assert dense_features(golden_clip, torch.zeros(shape), "scclip").isfinite().all()


def test_quirk_positions(golden_clip):
    """Read with the scale (n + 0.1) / 14, and left alone on every grid of as many patches as the native one."""
    flat = golden_clip.positions(Grid(7, 28), interpolation=DINO_POSITIONS)
    assert torch.equal(flat, golden_clip.positions(Grid(14, 14)))
    wide = golden_clip.positions(Grid(14, 20), interpolation=DINO_POSITIONS)
    native = golden_clip.positions(Grid(14, 14))[1:].T.reshape(1, golden_clip.width, 14, 14)
    scale = ((14 + 0.1) / 14, (20 + 0.1) / 14)
    expected = F.interpolate(native, scale_factor=scale, mode="bicubic").flatten(2)[0].T
    assert torch.equal(wide[1:], expected)
    bicubic = F.interpolate(native, size=(14, 20), mode="bicubic").flatten(2)[0].T
    assert (bicubic - expected).abs().max() > 1e-6
    image = noise(1, 3, 224, 320)
    plain = golden_clip.trunk(image, AttentionRequest())
    assert not torch.equal(golden_clip.trunk(image, interpolation=DINO_POSITIONS).tokens, plain.tokens)

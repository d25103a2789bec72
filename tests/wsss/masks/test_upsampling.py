"""Large photos are refined at a smaller size; their labels come back along the photo's edges."""

import cv2
import numpy as np
import pytest

from tagclip.errors import UsageError
from wsss.config import MaskConfig
from wsss.masks import upsampling as enlarging
from wsss.masks.label_map import label_scores, mask_from_maps, refine_label_scores
from wsss.masks.upsampling import fitted_size, most_probable_guided, most_probable_nearest


def disc(height=600, width=800):
    """A photo of a red disc on green, its true mask, and class maps on a 12 x 16 patch grid."""
    rows, columns = np.ogrid[:height, :width]
    truth = (rows - 0.45 * height) ** 2 + (columns - 0.55 * width) ** 2 < (0.3 * height) ** 2
    rgb = np.where(truth[..., None], (200, 60, 50), (60, 140, 70)).astype(np.uint8)
    rgb = np.clip(rgb + np.random.default_rng(0).normal(0, 6, rgb.shape), 0, 255).astype(np.uint8)
    maps = cv2.resize(truth.astype(np.float32), (16, 12), interpolation=cv2.INTER_AREA)[None]
    return rgb, truth, maps


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [((600, 800), None, (600, 800)), ((600, 800), 800, (600, 800)), ((600, 800), 400, (300, 400)),
     ((40, 6000), 1024, (7, 1024)), ((1, 5000), 100, (1, 100))],
)  # fmt: skip
def test_fitted_size(size, limit, expected):
    assert fitted_size(*size, limit) == expected


def test_small_photos_are_what_they_were():
    rgb, _, maps = disc(120, 160)
    limited, whole = MaskConfig(), MaskConfig(max_refine_side=None)
    one, two = mask_from_maps(rgb, maps, [0], limited), mask_from_maps(rgb, maps, [0], whole)
    assert np.array_equal(one.mask, two.mask)
    assert np.array_equal(one.confidence, two.confidence)


def test_guided_labels_follow_the_edge_and_nearest_ones_are_blocks():
    rgb, truth, maps = disc()
    wrong = {}
    for upsampling in ("guided", "nearest"):
        config = MaskConfig(confidence=None, max_refine_side=100, upsampling=upsampling, refiner="none")
        labels = mask_from_maps(rgb, maps, [4], config).labels
        assert labels.shape == truth.shape
        assert set(np.unique(labels)) == {0, 5}
        wrong[upsampling] = (labels == 5) ^ truth
    assert wrong["guided"].mean() < 0.6 * wrong["nearest"].mean()


def test_guided_upsampling_of_refined_probabilities_is_close_to_refining_at_full_size():
    rgb, truth, maps = disc()
    full = mask_from_maps(rgb, maps, [0], MaskConfig(confidence=None, max_refine_side=None)).labels
    small = mask_from_maps(rgb, maps, [0], MaskConfig(confidence=None, max_refine_side=200)).labels
    assert (full == small).mean() > 0.995
    assert (small == truth).mean() > 0.99


def test_bands_change_nothing(monkeypatch):
    rgb, _, maps = disc(300, 240)
    small = cv2.resize(rgb, (60, 75), interpolation=cv2.INTER_AREA)
    scores = label_scores(maps, (75, 60), MaskConfig())
    probabilities = refine_label_scores(small, scores, MaskConfig(refiner="none"))
    expected = most_probable_guided(probabilities, small, rgb)
    monkeypatch.setattr("wsss.masks.upsampling.BAND", 7)
    found = most_probable_guided(probabilities, small, rgb)
    assert np.array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


def test_probabilities_that_do_not_depend_on_place_stay():
    rgb = np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    small = cv2.resize(rgb, (35, 45), interpolation=cv2.INTER_AREA)
    even = np.stack([np.full((45, 35), share, np.float32) for share in (0.2, 0.5, 0.3)])
    for best, highest in (most_probable_guided(even, small, rgb), most_probable_nearest(even, (90, 70))):
        assert (best == 1).all()
        np.testing.assert_allclose(highest, 0.5, atol=1e-4)


def test_extreme_shapes():
    maps = np.random.default_rng(0).random((2, 1, 40), dtype=np.float32)
    rgb = np.random.default_rng(0).integers(0, 255, (3, 3000, 3), dtype=np.uint8)
    for refiner in ("crf", "none"):
        found = mask_from_maps(rgb, maps, [0, 1], MaskConfig(refiner=refiner, max_refine_side=500))
        assert found.mask.shape == found.confidence.shape == (3, 3000)


def test_reference_refines_at_full_size_and_limits_are_checked():
    assert MaskConfig.preset("reference").max_refine_side is None
    assert MaskConfig.preset().max_refine_side == 1024
    with pytest.raises(UsageError, match="max_refine_side 0 must be positive"):
        MaskConfig(max_refine_side=0)


@pytest.mark.parametrize("limit", [1, 20 * 24 * 16 * 4])
def test_many_labels_in_groups_are_all_labels_at_once(limit, monkeypatch):
    generator = np.random.default_rng(0)
    probabilities = generator.random((9, 20, 24), dtype=np.float32)
    probabilities /= probabilities.sum(axis=0)
    small, large = (generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((20, 24), (300, 330)))
    best, highest = most_probable_guided(probabilities, small, large)
    monkeypatch.setattr(enlarging, "COEFFICIENT_BYTES", limit)
    in_groups = most_probable_guided(probabilities, small, large)
    assert np.array_equal(in_groups[0], best)
    assert np.array_equal(in_groups[1], highest)

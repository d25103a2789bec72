
import cv2
import numpy as np
import pytest

from tagclip.errors import UsageError
from wsss.config import MaskConfig
from wsss.masks.crf import crf_probabilities
from wsss.masks.label_map import label_scores, mask_from_maps

PLAIN = MaskConfig(refiner="none", confidence=None)


def picture(height=30, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cams(count, seed=1):
    return np.random.default_rng(seed).random((count, 3, 4), dtype=np.float32)


def test_label_scores():
    maps = cams(2)
    scores = label_scores(maps, (30, 40), MaskConfig(alpha=2.0))
    resized = np.stack([cv2.resize(cam, (40, 30)) for cam in maps])
    assert scores.dtype == np.float32
    assert np.array_equal(scores[1:], resized)
    np.testing.assert_allclose(scores[0], (1 - resized.max(axis=0)) ** 2, atol=1e-7)
    assert np.array_equal(label_scores(maps, (30, 40), MaskConfig(), has_background=False), resized)
    rounded = label_scores(maps, (30, 40), MaskConfig(round_upsampled=True))
    assert np.array_equal(rounded[1:], resized.astype(np.float16).astype(np.float32))


def test_labels_without_refinement():
    maps = np.zeros((2, 3, 4), np.float32)
    maps[0, :, :2] = 1
    maps[1, :, 3] = 0.9
    found = mask_from_maps(picture(), maps, [14, 2], PLAIN)
    assert set(np.unique(found.mask)) == {0, 15, 3}
    assert found.mask[15, 0] == 15
    assert found.mask[15, 39] == 3
    assert found.mask[15, 27] == 0
    assert found.mask.dtype == np.uint8
    assert found.probabilities is None


def test_without_background_labels_are_classes():
    maps = cams(2)
    found = mask_from_maps(picture(), maps, [0, 170], PLAIN, has_background=False)
    stored = maps.astype(np.float16).astype(np.float32)
    expected = np.stack([cv2.resize(cam, (40, 30)) for cam in stored]).argmax(axis=0)
    assert np.array_equal(found.mask, np.where(expected == 0, 0, 170))


@pytest.mark.parametrize(("refiner", "limit"), [("crf", 0.95), ("pamr", 0.5), ("none", 0.5)])
def test_confidence_decides_what_is_ignored(refiner, limit):
    config = MaskConfig(refiner=refiner, confidence=limit)
    found = mask_from_maps(picture(), cams(2), [3, 5], config, keep_probabilities=True)
    assert found.probabilities.shape == (3, 30, 40)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(found.confidence, found.probabilities.max(axis=0))
    assert np.array_equal(found.labels, np.array([0, 4, 6])[found.probabilities.argmax(axis=0)])
    doubtful = found.confidence < limit
    assert doubtful.any()
    assert not doubtful.all()
    assert np.array_equal(found.mask, np.where(doubtful, 255, found.labels))
    everything = mask_from_maps(picture(), cams(2), [3, 5], MaskConfig(refiner=refiner, confidence=None))
    assert np.array_equal(everything.mask, found.labels)


def test_crf_is_over_present_labels_only():
    config = MaskConfig(confidence=None)
    scores = label_scores(cams(2).astype(np.float16), (30, 40), config)
    expected = np.array([0, 20, 8])[crf_probabilities(picture(), scores, config.crf).argmax(axis=0)]
    assert np.array_equal(mask_from_maps(picture(), cams(2), [19, 7], config).mask, expected)


@pytest.mark.parametrize("refiner", ["crf", "pamr", "par", "none"])
def test_no_tag_is_all_background(refiner):
    empty = np.zeros((0, 3, 4), np.float32)
    found = mask_from_maps(picture(), empty, [], MaskConfig(refiner=refiner))
    assert not found.mask.any()
    assert (found.confidence == 1).all()
    stuff = mask_from_maps(picture(), empty, [], MaskConfig(refiner=refiner), has_background=False)
    assert (stuff.mask == 255).all()
    assert not stuff.confidence.any()


@pytest.mark.parametrize("refiner", ["crf", "pamr", "par", "none"])
def test_empty_cam_is_all_background(refiner):
    for keep in (False, True):  # with and without the CRF's shortcut
        config = MaskConfig(refiner=refiner)
        found = mask_from_maps(picture(), np.zeros((2, 3, 4), np.float32), [0, 1], config, keep_probabilities=keep)
        assert not found.mask.any()
        assert (found.confidence >= 0.95).all()


@pytest.mark.parametrize("seed", range(4))
def test_shortcut_gives_the_mask_of_the_crf(seed):
    """A tag that covers nothing but a corner, weakly: background leads everywhere."""
    random = np.random.default_rng(seed)
    maps = random.random((2, 3, 4), dtype=np.float32) * 0.02
    quick = mask_from_maps(picture(seed=seed), maps, [4, 9], MaskConfig())
    slow = mask_from_maps(picture(seed=seed), maps, [4, 9], MaskConfig(), keep_probabilities=True)
    assert quick.probabilities is None
    assert np.array_equal(quick.mask, slow.mask)
    assert np.array_equal(quick.labels, slow.labels)
    assert (quick.confidence <= slow.confidence + 1e-5).all()


def test_masks_from_memory_and_from_files_are_the_same():
    maps = cams(3)
    stored = maps.astype(np.float16)
    config = MaskConfig()
    memory = mask_from_maps(picture(), maps, [0, 1, 2], config)
    assert np.array_equal(memory.mask, mask_from_maps(picture(), stored, [0, 1, 2], config).mask)
    assert np.array_equal(memory.confidence, mask_from_maps(picture(), stored, [0, 1, 2], config).confidence)


def test_more_labels_than_8_bits_hold():
    config = MaskConfig().for_labels(301)
    maps = cams(2)
    few = mask_from_maps(picture(), maps, [4, 9], MaskConfig())
    many = mask_from_maps(picture(), maps, [279, 289], config)
    assert (few.mask.dtype, many.mask.dtype, many.labels.dtype) == (np.uint8, np.uint16, np.uint16)
    renamed = np.zeros(256, np.uint16)
    renamed[[5, 10, 255]] = 280, 290, 65535
    assert np.array_equal(many.mask, renamed[few.mask])
    assert set(np.unique(many.labels)) == {0, 280, 290}
    assert 65535 in many.mask
    nothing = mask_from_maps(picture(), maps[:0], [], config, has_background=False)
    assert (nothing.mask.dtype, nothing.mask.min()) == (np.uint16, 65535)


@pytest.mark.parametrize("refiner", ["crf", "pamr", "par", "none"])
def test_only_sure_background_is_kept(refiner):
    maps = np.full((2, 3, 4), 0.02, np.float32)
    maps[0, :, 0], maps[1, :, 3] = 0.9, 0.3  # 0.3 is below 1 - 0.3, above 0.7 ** 4
    loose = MaskConfig(refiner=refiner, confidence=None)
    strict = MaskConfig(refiner=refiner, confidence=None, alpha=4.0)
    both = MaskConfig(refiner=refiner, confidence=None, sure_alpha=4.0)
    one, other, found = (mask_from_maps(picture(), maps, [4, 7], config) for config in (loose, strict, both))
    doubtful = (one.labels == 0) & (other.labels != 0)
    assert doubtful.any()
    assert (one.labels[~doubtful] == 0).any()
    assert np.array_equal(found.mask, np.where(doubtful, 255, one.labels))
    assert np.array_equal(found.labels, one.labels)


def test_sure_background_where_one_label_leads_everywhere():
    maps = np.full((1, 3, 4), 0.3, np.float32)
    loose = MaskConfig(confidence=None)
    assert not mask_from_maps(picture(), maps, [4], loose).mask.any()
    assert (mask_from_maps(picture(), maps, [4], MaskConfig(confidence=None, sure_alpha=4.0)).mask == 255).all()
    sure = mask_from_maps(picture(), maps, [4], MaskConfig(confidence=None, sure_alpha=4.0), has_background=False)
    assert (sure.mask == 4).all()


def test_sure_alpha_is_above_alpha():
    with pytest.raises(UsageError, match=r"sure_alpha 2\.0 must be above alpha 2\.0"):
        MaskConfig(alpha=2.0, sure_alpha=2.0)

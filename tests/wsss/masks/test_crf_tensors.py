"""The dense CRF on tensors beside pydensecrf, and beside a transcription where that is not installed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tagclip.errors import UsageError
from tests.golden import SHARED, golden_cases, golden_settings
from tests.oracle.crf import dense_crf as by_pydensecrf
from tests.oracle.crf import mean_field, wrapped_image
from tests.wsss.masks.test_crf import maps, picture
from wsss.config import CrfConfig
from wsss.masks import crf_tensors, lattice
from wsss.masks.crf import crf_probabilities
from wsss.masks.crf_tensors import dense_crf
from wsss.masks.label_map import label_scores

TENSORS = CrfConfig(engine="torch")
PHOTOS = sorted((SHARED / "data" / "voc" / "JPEGImages").glob("*.jpg"))[2:200:66]


def refined(rgb, scores, config=TENSORS, device="cpu"):
    return crf_probabilities(rgb, scores, config, device)


def compare(found, expected):
    """At least 99.9 % of labels are equal, and probabilities within 1e-3."""
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)
    assert (found.argmax(axis=0) == expected.argmax(axis=0)).mean() >= 0.999
    assert np.abs(found - expected).max() <= 1e-3


@pytest.mark.parametrize("labels", [2, 3, 9])
def test_equals_the_transcription_without_pydensecrf(labels, device):
    rgb, scores = picture(9, 13)[0], maps(labels, 9, 13)
    compare(refined(rgb, scores, device=device), mean_field(rgb, scores))
    wrapped = replace(TENSORS, wrap_dark_pixels=True, iterations=3)
    compare(refined(rgb, scores, wrapped, device), mean_field(wrapped_image(rgb), scores, 3))


@pytest.mark.parametrize("labels", [2, 3, 6, 21])
def test_equals_pydensecrf(labels, device):
    rgb, scores = picture(60, 80)[0], maps(labels, 60, 80)
    compare(refined(rgb, scores, device=device), by_pydensecrf(rgb, scores))


@pytest.mark.parametrize(
    "change",
    [
        {"iterations": 0}, {"gaussian_sxy": 3.0}, {"gaussian_compat": 0.0}, {"bilateral_sxy": 5.0},
        {"bilateral_srgb": 30.0}, {"bilateral_compat": 100.0}, {"probability_floor": 0.3}, {"wrap_dark_pixels": True},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_means_what_it_means_to_pydensecrf(change):
    pytest.importorskip("pydensecrf")
    rgb, scores = picture()[0], maps(3) * 0.2 + 0.4
    ours = refined(rgb, scores, replace(TENSORS, **change))
    compare(ours, crf_probabilities(rgb, scores, CrfConfig(engine="pydensecrf", **change)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_thin_pictures(height, width):
    rgb, scores = picture(height, width)[0], maps(3, height, width)
    compare(refined(rgb, scores), by_pydensecrf(rgb, scores))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_constant_picture(level):
    rgb, scores = np.full((40, 50, 3), level, np.uint8), maps(3, 40, 50)
    compare(refined(rgb, scores), by_pydensecrf(rgb, scores))


def test_saturated_scores():
    rgb, disc = picture(40, 50)
    scores = np.stack([disc, ~disc, np.zeros_like(disc)]).astype(np.float32)
    compare(refined(rgb, scores), by_pydensecrf(rgb, scores))


def test_one_label():
    rgb, scores = picture()[0], maps(1)
    assert np.array_equal(refined(rgb, scores), np.ones((1, 24, 32), np.float32))
    (found,) = dense_crf([torch.from_numpy(rgb)], [torch.from_numpy(scores)], TENSORS)
    assert torch.equal(found, torch.ones(1, 24, 32))


def test_messages_too_large_for_exp():
    rgb, scores = picture()[0], maps(3)
    strong = replace(TENSORS, bilateral_compat=1e5)
    assert np.isfinite(refined(rgb, scores, strong)).all()


def test_any_memory_layout():
    rgb, scores = picture()[0], maps(3)
    expected = refined(rgb, scores)
    flipped, strided = rgb[:, ::-1].copy()[:, ::-1], np.asfortranarray(scores)
    for array in (flipped, strided):
        array.setflags(write=False)
    assert np.array_equal(refined(flipped, strided), expected)


def test_images_of_a_batch_may_differ_and_do_not_see_each_other(monkeypatch):
    sizes, labels = [(24, 32), (31, 9), (1, 5), (24, 32)], [3, 9, 1, 2]
    images = [torch.from_numpy(picture(*size, seed=place)[0]) for place, size in enumerate(sizes)]
    scores = [torch.from_numpy(maps(count, *size)) for count, size in zip(labels, sizes, strict=True)]
    alone = [dense_crf([image], [one], TENSORS)[0] for image, one in zip(images, scores, strict=True)]
    for together in (crf_tensors._dense_crf_together, dense_crf):
        for found, expected in zip(together(images, scores, TENSORS), alone, strict=True):
            assert found.shape == expected.shape
            assert found.is_contiguous()
            np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-5)
    assert dense_crf([], [], TENSORS) == []


def test_parts_of_a_batch_are_bounded(monkeypatch):
    monkeypatch.setattr(crf_tensors, "PIXELS_TOGETHER", 250)
    pictures = [torch.empty(10, width, 3, device="meta") for width in (10, 10, 10, 99, 5)]
    parts = crf_tensors._parts(pictures)
    assert [list(range(5))[part] for part in parts] == [[0, 1], [2], [3], [4]]
    on_cpu = [torch.empty(1, 1, 3)] * 3
    assert [list(range(3))[part] for part in crf_tensors._parts(on_cpu)] == [[0], [1], [2]]


def test_cut_into_parts_gives_the_same(monkeypatch):
    rgb, scores = picture()[0], maps(5)
    whole = refined(rgb, scores)
    monkeypatch.setattr(lattice, "POINTS_AT_ONCE", {"cpu": 50})
    monkeypatch.setattr(lattice, "TABLE_VALUES", {"cpu": 2000})
    monkeypatch.setattr(lattice, "LONGEST_SUM", {"cpu": 16})
    np.testing.assert_allclose(refined(rgb, scores), whole, atol=2e-5)


def test_the_same_bits_for_any_number_of_threads():
    rgb, scores = picture(80, 90)[0], maps(3, 80, 90)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(refined(rgb, scores))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bilateral_srgb": 1e-4}, "masks.crf.bilateral_sxy 67 and masks.crf.bilateral_srgb 0.0001"),
        ({"bilateral_srgb": 1e-40}, "masks.crf.bilateral_sxy 67 and masks.crf.bilateral_srgb 1e-40"),
        ({"gaussian_sxy": 1e-7}, "masks.crf.gaussian_sxy 1e-07"),
    ],
)
def test_deviations_too_small_are_named(change, named):
    with pytest.raises(UsageError) as error:
        refined(picture()[0], maps(2), replace(TENSORS, **change))
    assert str(error.value) == (
        f"{named}, a photo of 32 x 24: a Gaussian this narrow has more lattice cells than can be numbered; "
        "use larger deviations"
    )


@pytest.mark.parametrize("case", golden_cases("cam"), ids=str)
def test_golden_labels(case):
    golden, config = case.arrays(), golden_settings("voc").masks
    low, high = (bound(golden["refined"], axis=(1, 2), keepdims=True) for bound in (np.min, np.max))
    scores = label_scores((golden["refined"] - low) / (high - low + 1e-7), golden["cam_label"].shape, config)
    found = refined(np.asarray(case.image()), scores, replace(config.crf, engine="torch"))
    ids = np.array([0, *(golden["ids"] + 1)])
    assert (ids[found.argmax(axis=0)] == golden["crf_label"]).mean() >= 0.999
    assert ((found.max(axis=0) >= 0.95) == golden["crf_confident"]).mean() >= 0.999


@pytest.mark.skipif(not PHOTOS, reason="no photos beside the checkout")
@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: getattr(path, "stem", "none"))
@pytest.mark.parametrize("labels", [2, 5])
def test_photos_equal_pydensecrf(photo, labels):
    rgb = np.asarray(Image.open(photo).convert("RGB"))
    scores = maps(labels, *rgb.shape[:2])
    compare(refined(rgb, scores), by_pydensecrf(rgb.copy(), scores))

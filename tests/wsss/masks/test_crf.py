import sys

import numpy as np
import pytest
import torch

from tagclip.errors import RequirementError, UsageError
from tests.oracle.crf import dense_crf, wrapped_image
from wsss.config import CrfConfig, MaskConfig
from wsss.masks.crf import crf_engine, crf_probabilities, settle_engine, uniform_label, wrap_dark_pixels


def picture(height=24, width=32, seed=0):
    """A bright disc on a dark, noisy background."""
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 3) ** 2
    noise = np.random.default_rng(seed).integers(0, 20, (height, width, 3))
    return (np.where(disc[..., None], 200, 40) + noise).astype(np.uint8), disc


def maps(labels, height=24, width=32, seed=0):
    return np.random.default_rng(seed).random((labels, height, width), dtype=np.float32)


@pytest.mark.parametrize("labels", [2, 3, 6])
def test_equals_the_transcription(labels):
    rgb, _ = picture()
    scores = maps(labels)
    plain = crf_probabilities(rgb, scores, CrfConfig())
    assert np.array_equal(plain, dense_crf(np.ascontiguousarray(rgb), scores))
    wrapped = crf_probabilities(rgb, scores, CrfConfig(wrap_dark_pixels=True))
    assert np.array_equal(wrapped, dense_crf(wrapped_image(rgb), scores))
    assert not np.array_equal(plain, wrapped)
    assert np.allclose(plain.sum(axis=0), 1, atol=1e-5)


def test_any_memory_layout():
    rgb, _ = picture()
    scores = maps(3)
    expected = crf_probabilities(rgb, scores, CrfConfig())
    strided = np.asfortranarray(scores)
    flipped = rgb[:, ::-1].copy()[:, ::-1]
    assert not strided.flags.c_contiguous
    assert not flipped.flags.c_contiguous
    assert np.array_equal(crf_probabilities(flipped, strided, CrfConfig()), expected)
    for array in (rgb, scores):
        array.setflags(write=False)
    assert np.array_equal(crf_probabilities(rgb, scores, CrfConfig()), expected)


def test_snaps_to_the_object():
    rgb, disc = picture()
    blurred = np.clip(np.where(disc, 0.7, 0.3) + np.random.default_rng(1).normal(0, 0.15, disc.shape), 0.05, 0.95)
    scores = np.stack([1 - blurred, blurred]).astype(np.float32)
    before = (scores.argmax(axis=0) == disc).mean()
    after = (crf_probabilities(rgb, scores, CrfConfig()).argmax(axis=0) == disc).mean()
    assert before < 0.95
    assert after > 0.99


def test_every_setting_has_an_effect():
    rgb, _ = picture()
    scores = maps(2) * 0.2 + 0.4
    base = crf_probabilities(rgb, scores, CrfConfig())
    for change in (
        {"iterations": 1}, {"gaussian_sxy": 3.0}, {"gaussian_compat": 1.0}, {"bilateral_sxy": 5.0},
        {"bilateral_srgb": 30.0}, {"bilateral_compat": 1.0}, {"probability_floor": 0.5},
    ):  # fmt: skip
        assert not np.array_equal(crf_probabilities(rgb, scores, CrfConfig(**change)), base), change


def test_dark_pixels_wrap():
    rgb = np.full((1, 1, 3), 10, np.uint8)
    assert wrap_dark_pixels(rgb, CrfConfig()).tolist() == [[[256 - 94, 256 - 106, 256 - 112]]]
    assert np.array_equal(wrap_dark_pixels(picture()[0], CrfConfig()), wrapped_image(picture()[0]))


def test_one_label_needs_no_crf():
    assert np.array_equal(crf_probabilities(picture()[0], maps(1), CrfConfig()), np.ones((1, 24, 32), np.float32))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("wrap", [False, True])
def test_shortcut_changes_nothing(seed, wrap):
    """Where the shortcut answers, the CRF gives the same label everywhere and is confident wherever the unary is."""
    random = np.random.default_rng(seed)
    rgb = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    labels = int(random.integers(2, 5))
    leader = int(random.integers(labels))
    scores = random.random((labels, 24, 32), dtype=np.float32) * 0.02
    scores[leader] = scores.sum(axis=0) + random.random((24, 32), dtype=np.float32) * 0.02 + 1e-4
    config = CrfConfig(wrap_dark_pixels=wrap)
    assert uniform_label(scores, None, config) == leader
    probabilities = crf_probabilities(rgb, scores, config)
    assert (probabilities.argmax(axis=0) == leader).all()
    unary = np.clip(scores, config.probability_floor, 1)
    assert (probabilities[leader] >= (unary / unary.sum(axis=0))[leader] - 1e-5).all()
    scores[leader] += 0.9
    assert uniform_label(scores, 0.9, config) == leader
    assert (crf_probabilities(rgb, scores, config)[leader] >= 0.9).all()


def test_shortcut_refuses_where_the_crf_may_decide():
    scores = np.stack([np.full((4, 4), 0.9), np.full((4, 4), 0.1)]).astype(np.float32)
    assert uniform_label(scores, None, CrfConfig()) == 0
    assert uniform_label(scores, 0.9, CrfConfig()) == 0
    assert uniform_label(scores, 0.95, CrfConfig()) is None
    scores[:, 2, 2] = 0.5  # a tie
    assert uniform_label(scores, None, CrfConfig()) is None
    scores[:, 2, 2] = 0.1, 0.9
    assert uniform_label(scores, None, CrfConfig()) is None
    # Both maps below the floor are the same to the CRF.
    assert uniform_label(np.array([[[1e-7]], [[1e-8]]], np.float32), None, CrfConfig()) is None


@pytest.mark.parametrize(
    "change", [{"iterations": -1}, {"bilateral_compat": -1.0}, {"gaussian_sxy": 0.0}, {"probability_floor": 0.0}]
)
def test_bad_settings(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        CrfConfig(**change)


@pytest.fixture
def no_pydensecrf(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)


@pytest.mark.pydensecrf
@pytest.mark.parametrize(
    ("engine", "device", "expected"),
    [
        ("auto", "cpu", "pydensecrf"), ("auto", torch.device("cpu"), "pydensecrf"), ("auto", "cuda", "torch"),
        ("auto", torch.device("cuda", 1), "torch"), ("auto", "mps", "torch"), ("torch", "cpu", "torch"),
        ("pydensecrf", "cuda", "pydensecrf"),
    ],
)  # fmt: skip
def test_engine_where_pydensecrf_is_installed(engine, device, expected):
    config = MaskConfig(crf=CrfConfig(engine=engine))
    assert crf_engine(config.crf, device) == expected
    assert settle_engine(config, device) == MaskConfig(crf=CrfConfig(engine=expected))


@pytest.mark.parametrize(("engine", "device"), [("auto", "cpu"), ("auto", "cuda"), ("torch", "cpu")])
def test_engine_where_pydensecrf_is_missing(no_pydensecrf, engine, device):
    config = MaskConfig(crf=CrfConfig(engine=engine))
    assert settle_engine(config, device).crf.engine == "torch"


def test_the_reference_preset_insists_on_pydensecrf(no_pydensecrf):
    reference = MaskConfig.preset("reference")
    assert (reference.crf.engine, MaskConfig.preset("default").crf.engine) == ("pydensecrf", "auto")
    for refused in (
        lambda: settle_engine(reference, "cpu"),
        lambda: crf_probabilities(picture()[0], maps(2), reference.crf),
    ):
        with pytest.raises(RequirementError, match=r"reference preset.*pip install.*masks\.crf\.engine=torch") as error:
            refused()
        assert "\n" not in str(error.value)
    unused = MaskConfig(refiner="none", crf=reference.crf)
    assert settle_engine(unused, "cpu") is unused


def test_tensors_where_pydensecrf_was_built_for_another_numpy(monkeypatch, tmp_path):
    (tmp_path / "pydensecrf").mkdir()
    (tmp_path / "pydensecrf" / "__init__.py").write_text("raise ValueError('numpy.dtype size changed')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydensecrf"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert crf_engine(CrfConfig()) == "torch"
    with pytest.raises(RequirementError, match=r"cannot be imported \(numpy\.dtype size changed\)"):
        settle_engine(MaskConfig.preset("reference"))


def test_tensors_where_pydensecrf_is_missing(no_pydensecrf):
    rgb, scores = picture()[0], maps(3)
    ours = crf_probabilities(rgb, scores, CrfConfig(engine="torch"))
    assert np.array_equal(crf_probabilities(rgb, scores, CrfConfig()), ours)


@pytest.mark.pydensecrf
def test_pydensecrf_where_it_is_installed():
    rgb, scores = picture()[0], maps(3)
    theirs = crf_probabilities(rgb, scores, CrfConfig(engine="pydensecrf"))
    assert np.array_equal(crf_probabilities(rgb, scores, CrfConfig()), theirs)
    assert not np.array_equal(crf_probabilities(rgb, scores, CrfConfig(engine="torch")), theirs)

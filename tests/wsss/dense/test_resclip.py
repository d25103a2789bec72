"""ResCLIP part by part: the feedback map on small grids, switches, plug-in form and quirks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tagclip.clip.prompts import build_text_classifier
from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from tests.golden_more import more_arrays, tensor
from wsss.config import PamrConfig
from wsss.dense import dense_features
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.dense.semantic_feedback import (
    NO_LABEL,
    FeedbackConfig,
    FirstAnswer,
    feedback_bias,
    feedback_map,
    first_answer,
    label_grid,
)
from wsss.dense.strategy import get_strategy
from wsss.dense.strategy_source import StrategySource
from wsss.masks.generator import MaskGenerator
from wsss.masks.pamr import refine_with_pamr

ONE = ("a photo of a {}.",)
CLASSES = Vocabulary(["cat", "dog", "car"], background=["grass", "sky"])
PLAIN = FeedbackConfig(blur=0.0)


@pytest.fixture(scope="module")
def picture():
    return torch.randn(3, 112, 160, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def words(golden_clip):
    return build_text_classifier(golden_clip, ["cat", "dog", "car", "grass", "sky"], ONE)


@pytest.mark.parametrize("size", ["5x9", "3x4", "14x14", "1x6", "9x5"])
def test_recorded_maps(size, monkeypatch):
    recorded = more_arrays("more_synthetic")
    labels = tensor(recorded[f"sfr_labels_{size}"])
    for part_bytes in (2**26, 4 * 4 * labels.numel() * 3):  # at once, and three rows at a time
        monkeypatch.setattr("wsss.maps.parts.PART_BYTES", part_bytes)
        found = feedback_map(labels, FeedbackConfig(path_check="code"))
        assert np.abs(found.numpy() - recorded[f"sfr_{size}"]).max() <= 1e-6
        plain = feedback_map(labels, FeedbackConfig(decay=False))
        assert np.abs(plain.numpy() - recorded[f"sfr_plain_{size}"]).max() <= 1e-6


def test_recorded_label_grid():
    recorded = more_arrays("more_synthetic")
    maps = tensor(recorded["grid_probs"])
    answer = FirstAnswer(maps.argmax(dim=0), maps.amax(dim=0))
    assert label_grid(answer, 16, 0.6, 0).tolist() == recorded["grid_labels"].tolist()


def test_recorded_pamr():
    recorded = more_arrays("more_synthetic")
    image, maps = tensor(recorded["pamr_image"]), tensor(recorded["pamr_in"])
    published = PamrConfig(dilations=(8, 16), centre_per_dilation=True)
    assert np.abs(refine_with_pamr(image, maps, published).numpy() - recorded["pamr_out"]).max() <= 1e-5
    once = refine_with_pamr(image, maps, PamrConfig(dilations=(8, 16)))
    assert np.abs(once.numpy() - recorded["pamr_out"]).max() > 1e-3


def test_one_label_everywhere_gives_uniform_rows():
    found = feedback_map(torch.zeros(4, 5, dtype=torch.long), PLAIN)
    assert torch.allclose(found, torch.full((20, 20), 1 / 20), rtol=1e-5)


def test_rows_sum_to_one():
    labels = torch.randint(0, 3, (6, 9), generator=torch.Generator().manual_seed(0))
    for config in (FeedbackConfig(), PLAIN, FeedbackConfig(decay=False)):
        assert torch.allclose(feedback_map(labels, config).sum(1), torch.ones(54), atol=1e-6)


def test_another_label_in_between_weakens_a_pair():
    labels = torch.tensor([[0, 0, 1, 1, 0, 0, 0, 0]])
    full, code = (feedback_map(labels, FeedbackConfig(blur=0.0, path_check=how)) for how in ("full", "code"))
    near, far = full[0, 1], full[0, 5]
    assert float(far / near) == pytest.approx(np.exp(-5 / 7), rel=1e-5)
    assert float(full[0, 2]) == 0
    # Quirk: only the first 4/7 of the way from 0 to 4 is looked at, which here reaches the other label all the same;
    assert float(code[0, 4] / code[0, 1]) == pytest.approx(np.exp(-4 / 7), rel=1e-5)
    # from 7 to 4 nothing lies between, from 6 to 1 the code stops at 5/7 of the way.
    late = torch.tensor([[0, 1, 0, 0, 0, 0, 0, 0]])
    full, code = (feedback_map(late, FeedbackConfig(blur=0.0, path_check=how)) for how in ("full", "code"))
    assert float(full[4, 0] / full[4, 5]) == pytest.approx(np.exp(-4 / 7), rel=1e-5)
    assert float(code[4, 0] / code[4, 5]) == pytest.approx(1.0, rel=1e-5)  # 4/7 of the way from 4 to 0 ends at 2


def test_quirk_doubtful_pixels_get_the_first_word(golden_clip):
    answer = FirstAnswer(torch.tensor([[2, 2], [1, 1]]), torch.tensor([[0.9, 0.8], [0.2, 0.9]]))
    assert label_grid(answer, 1, 0.5).tolist() == [[2, 2], [NO_LABEL, 1]]
    assert label_grid(answer, 1, 0.5, 0).tolist() == [[2, 2], [0, 1]]
    # the smallest of equals
    assert label_grid(answer, 2, 0.0).tolist() == [[1]]


def test_quirk_half_precision():
    labels = torch.randint(0, 3, (6, 9), generator=torch.Generator().manual_seed(0))
    exact, half = (feedback_bias(labels, FeedbackConfig(half_precision=way)) for way in (False, True))
    assert float(exact.max()) == pytest.approx(0.7 * 1.8)
    assert 1e-5 < (exact - half).abs().max() < 1e-3
    assert exact[0].abs().max() == exact[:, 0].abs().max() == 0


def test_first_answer_in_parts_equals_that_at_once(picture):
    cosines = torch.randn(7, 7, 10, generator=torch.Generator().manual_seed(1)) / 10
    once, parts = (first_answer(cosines, picture, (112, 160), FeedbackConfig(), part_bytes=n) for n in (2**30, 1))
    assert torch.equal(once.words, parts.words)
    assert torch.allclose(once.probabilities, parts.probabilities, rtol=1e-5)
    full = F.interpolate(cosines[None], (112, 160), mode="bilinear")[0]
    unrefined = first_answer(cosines, None, (112, 160), FeedbackConfig())
    assert torch.allclose(unrefined.probabilities, (40 * full).softmax(0).amax(0), rtol=1e-4)


@pytest.mark.parametrize(("base", "options"), [("naclip", {}), ("clearclip", {}), ("sclip", {}), ("clip", {})])
def test_without_its_parts_it_is_the_base_bit_for_bit(golden_clip, picture, words, base, options):
    off = dense_features(golden_clip, picture, "resclip", rows=words, base=base, use_rcs=False, use_sfr=False)
    assert torch.equal(off, dense_features(golden_clip, picture, base, **options))


def test_no_weight_is_no_part(golden_clip, picture, words):
    nothing = {"rcs_weight": 0.0, "rcs_scale": 1.0, "feedback": {"weight": 0.0, "scale": 1.0}}
    found = dense_features(golden_clip, picture, "resclip", rows=words, **nothing)
    assert (found - dense_features(golden_clip, picture, "naclip")).abs().max() <= 1e-5


@pytest.mark.parametrize("base", ["naclip", "clearclip", "sclip", "clip"])
def test_every_part_plugs_into_every_base(golden_clip, picture, words, base):
    full = dense_features(golden_clip, picture, "resclip", rows=words, base=base)
    first = dense_features(golden_clip, picture, "resclip", base=base)
    plain = dense_features(golden_clip, picture, "resclip", rows=words, base=base, use_rcs=False)
    assert (full - first).abs().max() > 1e-3
    assert (full - plain).abs().max() > 1e-3
    assert torch.equal(first, dense_features(golden_clip, picture, "resclip", rows=words, base=base, use_sfr=False))


def test_the_cross_correlation_alone_is_resclip_rcs(golden_clip, picture):
    both = dense_features(golden_clip, picture, "resclip", rcs_weight=0.3, rcs_scale=1.0)
    assert (both - dense_features(golden_clip, picture, "resclip-rcs", weight=0.3)).abs().max() <= 1e-5


def test_bad_options(golden_clip, picture):
    with pytest.raises(UsageError, match="base 'gclip'; choose from naclip"):
        dense_features(golden_clip, picture, "resclip", base="gclip")
    with pytest.raises(UsageError, match="FeedbackConfig has no option 'weigth'"):
        dense_features(golden_clip, picture, "resclip", feedback={"weigth": 1})
    with pytest.raises(UsageError, match="unknown preset 'published'"):
        dense_features(golden_clip, picture, "resclip", preset="published")


def test_presets_differ_in_quirks_only():
    reference, default = (get_strategy("resclip", preset=name).options for name in ("reference", "default"))
    assert {name for name in vars(default) if getattr(reference, name) != getattr(default, name)} == {
        "dino_positions", "feedback"
    }  # fmt: skip
    quirks = {
        name for name in vars(default.feedback)
        if getattr(reference.feedback, name) != getattr(default.feedback, name)
    }  # fmt: skip
    assert quirks == {"path_check", "half_precision", "doubtful_is_first", "pamr"}


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize("preset", ["default", "reference"])
def test_the_segmenter_feeds_back_the_words_of_the_image(golden_clip, mode, preset):
    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    settings = {"strategy": "resclip", "preset": preset, "templates": ONE, "mode": mode, "crop": 64, "stride": 64,
                "window_batch": 1}  # fmt: skip
    made = DenseSegmenter(golden_clip, CLASSES, DenseConfig.from_dict(settings))
    result = made(rgb, classes=["dog"])
    rows = build_text_classifier(golden_clip, ["dog", "grass", "sky"], ONE)
    if mode == "whole":
        features = dense_features(golden_clip, rgb, "resclip", preset=preset, rows=rows)
        maps = (40.0 * features @ rows.T).T.reshape(1, 3, 6, 8)
        probabilities = F.interpolate(maps, size=(96, 128), mode="bilinear")[0].softmax(0)
    else:
        probabilities = torch.zeros(3, 96, 128)
        for top, left in ((0, 0), (0, 64), (32, 0), (32, 64)):
            crop = rgb[top : top + 64, left : left + 64]
            features = dense_features(golden_clip, crop, "resclip", preset=preset, rows=rows)
            maps = (40.0 * features @ rows.T).T.reshape(1, 3, 4, 4)
            probabilities[:, top : top + 64, left : left + 64] += F.interpolate(maps, size=(64, 64), mode="bilinear")[0]
        seen = torch.tensor([1, 2, 1]).repeat_interleave(32)[:, None]
        probabilities = (probabilities / seen).softmax(0)
    assert np.abs(result.confidence - probabilities.amax(0).numpy()).max() <= 1e-5
    unfed = DenseSegmenter(golden_clip, CLASSES, DenseConfig.from_dict({**settings, "options": {"use_sfr": False}}))
    assert np.abs(unfed(rgb, classes=["dog"]).confidence - result.confidence).max() > 1e-4


def test_masks_are_fed_back_their_tags(golden_clip):
    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    dense = DenseConfig.from_dict({"strategy": "resclip", "templates": ONE})
    maps = MaskGenerator(StrategySource(golden_clip, CLASSES, dense=dense))(rgb, tags=["dog"]).maps
    rows = build_text_classifier(golden_clip, ["dog", "grass", "sky"], ONE)
    # Stage two no longer has the image: no refinement by its colours.
    features = dense_features(golden_clip, rgb, "resclip", rows=rows, feedback={"pamr": None})
    assert np.abs(maps[0].ravel() - (40.0 * features @ rows.T).softmax(-1)[:, 0].numpy()).max() <= 1e-5
    reference = DenseConfig.from_dict({"strategy": "resclip", "templates": ONE, "preset": "reference"})
    with pytest.raises(UsageError, match="a trunk of their own"):
        StrategySource(golden_clip, CLASSES, dense=reference)

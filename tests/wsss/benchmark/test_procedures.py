"""What is timed is what the product computes, and what the plain transcription computes."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tagclip import TagCLIP
from tagclip.clip import wrap_clip
from tagclip.errors import UsageError
from tests.clip_models import B16, make_model
from wsss.benchmark import baseline
from wsss.benchmark.agreement import arg_max_mask, compare_results
from wsss.benchmark.baseline import BaselineProcedure, load_oracle
from wsss.benchmark.measure import Clock, FlopClock
from wsss.benchmark.procedure import FastProcedure
from wsss.benchmark.settings import BenchmarkSettings
from wsss.benchmark.workload import choose_tags, make_rows, open_photos, read_recipe
from wsss.maps.gradcam_source import GradCamSource

SETTINGS = BenchmarkSettings(count=2, size=(200, 150))

ORACLE = Path(__file__).parents[2] / "oracle"


@pytest.fixture(scope="module")
def clip():
    model = make_model(B16)
    model.logit_scale.data.fill_(float(np.log(100)))
    return wrap_clip(model)


@pytest.fixture(scope="module", params=["masks/voc2012", "masks/cocostuff"])
def case(request, clip):
    """A recipe, rows, ours, and photos with two tags each."""
    recipe = read_recipe(replace(SETTINGS, config=request.param))
    with open_photos(SETTINGS) as photos:
        rows = make_rows(SETTINGS, clip, recipe, photos)
        fast = FastProcedure(clip, recipe, rows)
        tagged = []
        for photo in photos:
            local, patches = fast.tag_locally(fast.trunk(fast.prepare([photo])), Clock())
            tagged.append(choose_tags(photo, local[0].numpy(), float(patches.min()), float(patches.max()), 2))
        yield recipe, rows, fast, tagged


def test_ours_is_what_the_package_computes(case, clip):
    recipe, rows, fast, photos = case
    vocabulary = recipe.vocabulary
    config = replace(fast.tagging, templates=("{}",))
    outcomes = fast(photos, Clock())
    for photo, outcome in zip(photos, outcomes, strict=True):
        one = replace(config, cwr=replace(config.cwr, threshold=photo.threshold))
        tagger, generator = TagCLIP(clip, vocabulary, config=one), GradCamSource(clip, vocabulary, config=fast.masks)
        tagger.classifier = torch.from_numpy(rows.tagging)
        generator.tag_rows, generator.background_rows = map(torch.from_numpy, (rows.cam, rows.cam_background))
        images = tagger.prepare(photo.path)[None]
        trunk = fast.trunk(images)
        torch.testing.assert_close(torch.from_numpy(outcome.scores), tagger.score_trunk(trunk, images)[0])
        cams = generator.maps_from_trunk(trunk, [photo.labels])[0]
        np.testing.assert_allclose(outcome.raw, cams.raw, atol=1e-5)
        np.testing.assert_allclose(outcome.refined, cams.refined, atol=1e-6)


def test_ours_is_what_the_plain_transcription_computes(case, clip):
    recipe, rows, fast, photos = case
    plain = BaselineProcedure(clip, recipe, rows, ORACLE)
    labels = len(recipe.vocabulary) + 1
    found = compare_results(fast(photos, Clock()), plain(photos, Clock()), photos, fast.tagging.rule, labels, True)
    assert found["max_difference_scores"] < 1e-5
    assert found["max_difference_raw"] < 1e-4
    assert found["max_difference_refined"] < 1e-4
    assert found["photos_with_other_tags"] == 0
    assert found["mask_miou"] > 0.99


def test_ours_needs_less_arithmetic(case, clip):
    recipe, rows, fast, photos = case
    ours, theirs = FlopClock(), FlopClock()
    fast(photos[:1], ours)
    BaselineProcedure(clip, recipe, rows, ORACLE)(photos[:1], theirs)
    assert tuple(ours.flop)[: len(fast.stage_one)] == fast.stage_one
    assert 1.3 < sum(theirs.flop.values()) / sum(ours.flop.values()) < 3


def test_comparison_sees_differences(case):
    _, _, fast, photos = case
    outcomes = fast(photos, Clock())
    scores = outcomes[0].scores[::-1].copy()
    other = [replace(outcomes[0], scores=scores, label_scores=1 - outcomes[0].label_scores), outcomes[1]]
    found = compare_results(outcomes, other, photos, fast.tagging.rule, len(outcomes[0].scores) + 1, True)
    assert found["max_difference_scores"] == pytest.approx(np.abs(outcomes[0].scores - scores).max())
    assert found["photos_with_other_tags"] == 0.5
    assert found["mask_miou"] < 0.9
    assert set(np.unique(arg_max_mask(outcomes[0], photos[0], False))) <= set(photos[0].labels)


def test_native_grid_has_no_shared_trunk_in_the_reference_preset(case, clip):
    _, _, fast, _ = case
    with pytest.raises(UsageError, match="native size"):
        fast.trunk(torch.zeros(1, 3, 224, 224))


def test_transcription_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, baseline.PACKAGE, raising=False)
    with pytest.raises(UsageError, match="not the plain transcription; it is tests/oracle of a clone"):
        load_oracle("tagclip", tmp_path)

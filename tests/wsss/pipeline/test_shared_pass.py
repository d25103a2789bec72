"""One pass of the model for both stages: how often it runs, and what it refuses."""

import pytest
import torch

from tagclip.config import TagCLIPConfig
from tagclip.errors import UsageError
from tagclip.tag_files import TagRecord
from tagclip.tagger import TagCLIP
from tests.wsss.runs import VOCABULARY
from wsss.config import MaskConfig
from wsss.maps.gradcam_source import GradCamSource
from wsss.pipeline.shared_pass import SharedPass

ONE = {"templates": ["a photo of a {}."]}


@pytest.fixture(scope="module")
def make(golden_clip):
    """preset -> a pass with a tagger."""

    def pass_of(preset, **masks):
        tagger = TagCLIP(
            golden_clip, VOCABULARY, config=TagCLIPConfig.from_dict(ONE, TagCLIPConfig.preset(preset))
        )
        config = MaskConfig.from_dict(masks, MaskConfig.preset(preset))
        return SharedPass(GradCamSource(golden_clip, VOCABULARY, config=config), tagger)

    return pass_of


@pytest.mark.parametrize(
    ("preset", "side", "passes"),
    # The published code rounds the native grid's positions for class maps and not for tags: two passes there.
    [("default", 224, 1), ("default", 160, 1), ("reference", 224, 2), ("reference", 160, 1)],
)
def test_the_trunk_runs_once_unless_the_stages_round_differently(make, golden_clip, monkeypatch, preset, side, passes):
    shared, ran, trunk = make(preset), [], type(golden_clip).trunk

    def counted(self, *given, **named):
        ran.append(1)
        return trunk(self, *given, **named)

    monkeypatch.setattr(type(golden_clip), "trunk", counted)
    (result,) = shared(torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    assert len(ran) == passes
    assert shared.times.images["trunk"] == passes
    assert result.scores.shape == (3,)
    assert result.maps.indices == result.indices


def test_known_tags_take_the_place_of_the_tagger(golden_clip):
    shared = SharedPass(GradCamSource(golden_clip, VOCABULARY, config=MaskConfig()))
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    first, second = shared(images, [TagRecord("a", (0, 2)), TagRecord("b", ())])
    assert (first.indices, second.indices) == ([0, 2], [])
    assert first.scores is None
    assert first.maps.maps.shape == (2, 4, 3)
    assert second.maps.maps.shape == (0, 4, 3)
    with pytest.raises(UsageError, match="the tags of every image are needed"):
        shared(images)


def test_scores_and_maps_that_are_not_finite_give_no_result(make):
    shared = make("default")
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    images[1] = float("nan")
    found = shared(images)
    assert found[0] is not None
    assert found[1] is None

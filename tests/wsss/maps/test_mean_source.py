"""The mean of several sources' class maps as a source of its own."""

import numpy as np
import pytest
import torch

from tagclip.clip import AttentionRequest
from tagclip.errors import UsageError
from tagclip.images import decode_image
from tagclip.vocabulary import Vocabulary
from tests.wsss.runs import VOCABULARY, draw_images
from wsss.config import MaskConfig
from wsss.dense.dense_config import DenseConfig
from wsss.dense.strategy_source import StrategySource
from wsss.maps.gradcam_source import GradCamSource
from wsss.maps.mean_source import MeanSource
from wsss.maps.views import maps_over_views
from wsss.masks.generator import MaskGenerator
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import MaskRunConfig

PLAIN = MaskConfig.from_dict({"refiner": "none", "confidence": None})
VIEWS = MaskConfig.from_dict({"refiner": "none", "confidence": None, "views": {"scales": [1.0], "flip": True}})


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return decode_image(draw_images(tmp_path_factory.mktemp("fused"), [(96, 64)])[0])


def sources(clip, config, *strategies):
    settings = (DenseConfig(strategy=name) for name in strategies)
    dense = [StrategySource(clip, VOCABULARY, config=config, dense=one) for one in settings]
    return [GradCamSource(clip, VOCABULARY, config=config), *dense]


def test_the_mean_of_three_sources(golden_clip, image):
    parts = sources(golden_clip, PLAIN, "sclip", "gclip")
    fused = MaskGenerator(MeanSource(parts))(image, ["cat", "bird"])
    alone = [MaskGenerator(part)(image, ["cat", "bird"]) for part in parts]
    assert np.abs(fused.maps - sum(one.maps for one in alone) / 3).max() < 1e-5
    assert np.abs(fused.raw - sum(one.raw for one in alone) / 3).max() < 1e-5
    assert np.abs(fused.maps - alone[0].maps).max() > 0.05
    assert fused.probabilities == pytest.approx(alone[0].probabilities, abs=1e-5)
    expected = MaskGenerator(parts[0]).mask_from_maps(image, fused.maps, fused.indices)
    assert np.array_equal(fused.mask, expected.mask)
    assert len(np.unique(fused.mask)) > 1


def test_views_are_fused_one_by_one(golden_clip, image):
    parts = sources(golden_clip, VIEWS, "sclip")
    fused = MeanSource(parts)
    images = fused.prepare(image)[None]
    found = maps_over_views(fused, fused.trunk(images), images, [[2, 0]], fused.trunk)[0]
    expected = 0
    for part in parts:
        both = (images, images.flip(-1))
        there, mirrored = (part.maps_from_trunk(part.trunk(seen), [[2, 0]])[0].maps for seen in both)
        expected = expected + (there + mirrored[:, :, ::-1]) / 4
    assert found.indices == [2, 0]
    assert np.abs(found.maps - expected).max() < 1e-5


def test_one_trunk_serves_all(golden_clip, image):
    parts = sources(golden_clip, PLAIN, "sclip", "gclip")
    fused = MeanSource(parts)
    assert fused.request.ranges == parts[0].request.ranges
    assert set(fused.request.keep) == {number for part in parts for number in part.request.keep}
    assert not fused.request.votes
    assert (fused.request | AttentionRequest(votes=True)).votes


def test_no_tags(golden_clip, image):
    assert not MaskGenerator(MeanSource(sources(golden_clip, PLAIN, "sclip")))(image, []).mask.any()


def test_sources_must_belong_together(golden_clip):
    one = sources(golden_clip, PLAIN)
    with pytest.raises(UsageError, match="1 sources of class maps: a mean needs two"):
        MeanSource(one)
    with pytest.raises(UsageError, match="differ in their config"):
        MeanSource(one + sources(golden_clip, VIEWS))
    other = GradCamSource(golden_clip, Vocabulary(["cat"]), config=PLAIN)
    with pytest.raises(UsageError, match="differ in their vocabulary"):
        MeanSource([*one, other])


def recipe(**fields):
    return Recipe.resolve(MaskRunConfig(vocabulary="cat,dog,bird", **fields))


def test_a_config_names_one_source_or_several(golden_clip, image):
    assert recipe().identity() == recipe(method=("cam",)).identity()
    assert recipe().identity()["method"] == "cam"
    both = recipe(method=("cam", "sclip"))
    assert both.identity()["method"] == ["cam", "sclip"]
    assert "dense" in both.identity()
    maker = both.maps(golden_clip)
    assert [type(source) for source in maker.sources] == [GradCamSource, StrategySource]
    assert isinstance(recipe(method="sclip").maps(golden_clip), StrategySource)
    with pytest.raises(UsageError, match="0 sources"):
        recipe(method=()).maps(golden_clip)
    with pytest.raises(UsageError, match="slip"):
        recipe(method=("cam", "slip")).maps(golden_clip)


def test_a_batch_is_images_one_by_one(golden_clip, image):
    fused = MeanSource(sources(golden_clip, PLAIN, "sclip"))
    images = torch.stack([fused.prepare(image), fused.prepare(image[:, ::-1].copy())])
    both = fused.maps_from_trunk(fused.trunk(images), [[0], [1, 2]])
    one = fused.maps_from_trunk(fused.trunk(images[1:]), [[1, 2]])[0]
    assert [len(result.maps) for result in both] == [1, 2]
    assert np.abs(both[1].maps - one.maps).max() < 1e-4

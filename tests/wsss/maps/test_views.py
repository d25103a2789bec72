"""Maps averaged over views, and maps weighed by the scores of their tags."""

import numpy as np
import pytest
import torch
from PIL import Image

from tagclip.errors import UsageError
from tagclip.images import decode_image
from tests.wsss.runs import VOCABULARY, complete, contents, draw_images
from wsss.config import MaskConfig
from wsss.dense.strategy_source import StrategySource
from wsss.maps.class_maps import ClassMaps, weigh_by_scores
from wsss.maps.gradcam_source import GradCamSource
from wsss.maps.views import View, maps_over_views
from wsss.masks.generator import MaskGenerator
from wsss.pipeline.given_tags import read_given_tags

VIEWS = {"scales": [1.0, 1.5], "flip": True}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return decode_image(draw_images(tmp_path_factory.mktemp("views"), [(96, 64)])[0])


def source(clip, **settings):
    config = MaskConfig.from_dict({"refiner": "none", "confidence": None, **settings})
    return GradCamSource(clip, VOCABULARY, config=config)


def generator(clip, **settings):
    return MaskGenerator(source(clip, **settings))


def test_the_plain_view_alone_is_what_it_was(golden_clip, image):
    plain = source(golden_clip)
    images = plain.prepare(image)[None]
    trunk = plain.trunk(images)
    found = maps_over_views(plain, trunk, images, [[0, 2]], pytest.fail)
    assert np.array_equal(found[0].maps, plain.maps_from_trunk(trunk, [[0, 2]])[0].maps)


@pytest.mark.parametrize("kind", [GradCamSource, StrategySource])
def test_the_mean_over_views_one_by_one(golden_clip, image, kind):
    config = MaskConfig.from_dict({"views": VIEWS})
    made = kind(golden_clip, VOCABULARY, config=config)
    images, indices = made.prepare(image)[None], [0, 1, 2]
    found = maps_over_views(made, made.trunk(images), images, [indices], made.trunk)[0]
    larger = torch.nn.functional.interpolate(images, (96, 144), mode="bicubic", antialias=True)
    expected = []
    for seen in (images, larger):
        for flipped in (False, True):
            one = made.maps_from_trunk(made.trunk(seen.flip(-1) if flipped else seen), [indices])[0]
            maps = torch.from_numpy(one.maps[:, :, ::-1].copy() if flipped else one.maps)
            expected.append(torch.nn.functional.interpolate(maps[None], (4, 6), mode="bilinear")[0].numpy())
    mean = np.mean(expected, axis=0)
    if kind is GradCamSource:
        mean -= mean.min((1, 2), keepdims=True)
        mean /= mean.max((1, 2), keepdims=True) + 1e-7
    assert found.maps.shape == (3, 4, 6)
    assert np.abs(found.maps - mean).max() < 1e-5


def test_a_mirrored_image_has_the_mirrored_maps(golden_clip, image):
    made = generator(golden_clip, views=VIEWS)
    there, back = made(image, ["cat", "dog"]), made(image[:, ::-1].copy(), ["cat", "dog"])
    assert np.abs(there.maps - back.maps[:, :, ::-1]).max() < 1e-4
    assert np.abs(generator(golden_clip)(image, ["cat"]).maps - there.maps[:1]).max() > 1e-3


def test_no_tags_no_views(golden_clip, image):
    made = generator(golden_clip, views=VIEWS)
    assert not made(image, []).mask.any()


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 1.3, 2.0])
def test_views_keep_to_whole_patches_and_come_back_to_the_grid(golden_clip, image, scale):
    made = source(golden_clip)
    images = made.prepare(image)[None]
    grid = made.trunk(images).grid
    seen = View(scale, True).of(images, 16)
    assert all(side % 16 == 0 and side > 0 for side in seen.shape[2:])
    found = View(scale, True).back(made.maps_from_trunk(made.trunk(seen), [[1]])[0], grid)
    assert found.maps.shape == found.raw.shape == found.refined.shape == (1, grid.height, grid.width)


@pytest.mark.parametrize(
    ("views", "text"),
    [
        ({"scales": [0.5]}, "1.0 among"),
        ({"scales": [1.0, -1.0]}, "positive"),
        ({"scales": [1.0, 1.0]}, "twice"),
        ({"scales": []}, "1.0 among"),
        ({"flip": 1}, "masks.views.flip"),
    ],
)
def test_bad_views_are_named(views, text):
    with pytest.raises(UsageError, match=text):
        MaskConfig.from_dict({"views": views})


def test_both_ways_into_the_pipeline_agree_bit_for_bit(golden_clip, tmp_path):
    images, settings = tmp_path / "images", {"views": VIEWS, "score_power": 0.5}
    paths = draw_images(images)
    complete(golden_clip, images, tmp_path / "one", **settings)
    tags = read_given_tags(tmp_path / "one", VOCABULARY)
    complete(golden_clip, images, tmp_path / "two", tags=tags, **settings)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    masks = {name for name in one if name.startswith(("masks/", "cams/"))}
    assert len(masks) == 2 * len(paths)
    assert {name: one[name] for name in masks} == {name: two[name] for name in masks}
    complete(golden_clip, images, tmp_path / "plain", tags=tags)
    plain = contents(tmp_path / "plain")
    assert any(plain[name] != one[name] for name in masks)
    # And the same as the generator alone, one image at a time.
    config = MaskConfig.from_dict({"confidence": 0.6, **settings})
    alone = MaskGenerator(golden_clip, VOCABULARY, config=config)
    given = tags["part0/0"]
    names = [VOCABULARY.names[index] for index in given.indices]
    result = alone(paths[0], names, scores=given.scores[list(given.indices)])
    stored = np.asarray(Image.open(tmp_path / "one" / "masks" / "part0" / "0.png"))
    assert (result.mask == stored).mean() > 0.99


def test_scores_must_be_one_a_tag(golden_clip, image):
    with pytest.raises(UsageError, match="1 scores for 2 different tags"):
        generator(golden_clip)(image, ["cat", "dog"], scores=[0.5])


def test_a_doubtful_tag_gets_a_lower_peak():
    maps = np.ones((3, 2, 2), np.float32)
    found = ClassMaps([0, 1, 2], maps, maps, maps, np.zeros(3, np.float32))
    assert weigh_by_scores(found, None, 1.0) is found
    assert weigh_by_scores(found, [0.9, 0.1, 0.2], 0.0) is found
    weighed = weigh_by_scores(found, [0.8, 0.2, np.nan], 0.5)
    assert weighed.maps[:, 0, 0] == pytest.approx([1.0, 0.5, 1.0])
    assert np.array_equal(weighed.raw, maps)
    assert weigh_by_scores(found, [0.0, 0.0, 0.0], 1.0).maps.min() == 1
    with pytest.raises(UsageError, match="score_power"):
        MaskConfig.from_dict({"score_power": -1.0})

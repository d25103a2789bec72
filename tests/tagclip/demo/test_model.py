"""The shipped weights know what they are shipped for: names and places of objects in a style that they never saw."""

import numpy as np
import pytest

from tagclip import TagCLIP, Vocabulary, load_clip
from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.demo.sprites import HELD_OUT_STYLE
from wsss import MaskGenerator


@pytest.fixture(scope="module")
def scenes():
    renderer = SceneRenderer(SceneConfig(side=(320, 352), styles=(HELD_OUT_STYLE,)), seed=4711)
    return [renderer(index) for index in range(12)]


@pytest.fixture(scope="module")
def clip():
    return load_clip("demo")


def test_the_best_scores_are_the_objects(clip, scenes):
    tagger = TagCLIP(clip, Vocabulary.named("voc"))
    found = wanted = 0
    for scene, result in zip(scenes, tagger([scene.image for scene in scenes]), strict=True):
        best = np.argsort(-result.scores)[: len(scene.objects)]
        found += len({tagger.vocabulary.names[index] for index in best} & set(scene.objects))
        wanted += len(scene.objects)
    assert found / wanted > 0.65  # 20 classes: chance is 0.15


def test_masks_of_true_tags_lie_on_the_objects(clip, scenes):
    generator = MaskGenerator(clip, Vocabulary.named("voc"))
    hits = answered = objects = pixels = 0
    for scene in scenes[:6]:
        mask = generator(scene.image, scene.objects).labels
        labels = [generator.vocabulary.index(name) + 1 for name in scene.objects]
        truth = np.asarray([0, *labels])[scene.mask]
        hits += (mask == truth)[mask > 0].sum()
        answered += (mask > 0).sum()
        objects += (truth > 0).sum()
        pixels += truth.size
    assert hits / answered > 0.4
    assert answered < 0.6 * pixels
    assert answered > 0.3 * objects

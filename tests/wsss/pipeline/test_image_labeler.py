"""One image in memory: what a run would write, in one object."""

import numpy as np
import pytest
from PIL import Image

from tagclip.config import TagCLIPConfig
from tagclip.errors import ImageError, UsageError
from tagclip.tagger import TagCLIP
from tests.wsss.runs import SIZES, VOCABULARY, draw_images
from wsss.config import MaskConfig
from wsss.files.mask_files import read_mask
from wsss.pipeline.image_labeler import ImageLabeler
from wsss.pipeline.label_folder import label_folder
from wsss.pipeline.recipe import dataset_settings

TAGGING = {"batch_size": 1, "templates": ["a photo of a {}."], "rule": {"threshold": 0.4, "floor": None}}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"), SIZES[:4])


@pytest.fixture(scope="module", params=["default", pytest.param("reference", marks=pytest.mark.pydensecrf)])
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def labeler(golden_clip, preset):
    tagging = TagCLIPConfig.from_dict(TAGGING, TagCLIPConfig.preset(preset))
    return ImageLabeler(golden_clip, VOCABULARY, preset, tagging=tagging)


def test_results_are_those_of_a_run(labeler, preset, images, golden_model_path, tmp_path):
    settings = {f"tagging.{name}": value for name, value in TAGGING.items()}
    run = label_folder(
        images[0].parents[1], VOCABULARY, tmp_path / "run", model=golden_model_path, device="cpu", preset=preset,
        settings={**settings, "work.mask_workers": 1},
    )  # fmt: skip
    for record in run.records():
        found = labeler(run.photo(record))
        assert found.tags == [VOCABULARY.names[index] for index in record.indices]
        assert [found.scores[name] for name in VOCABULARY.names] == record.scores.tolist()
        assert list(found.maps) == found.tags
        for name, stored in run.maps(record.id).items():
            assert np.array_equal(found.maps[name].astype(stored.dtype), stored)
        assert np.array_equal(found.mask, read_mask(run.mask_path(record.id)))


def test_scores_are_the_taggers_best_first(labeler, preset, images, golden_clip):
    found = labeler(images[0])
    assert list(found.scores.values()) == sorted(found.scores.values(), reverse=True)
    alone = TagCLIP(
        golden_clip, VOCABULARY, config=TagCLIPConfig.from_dict(TAGGING, TagCLIPConfig.preset(preset))
    )(images[0])
    assert alone.scores_by_name == pytest.approx(found.scores, abs=1e-6)


def test_one_image_and_lists(labeler, images):
    one = labeler(str(images[0]))
    assert one.image.shape == (*one.mask.shape, 3)
    assert one.confidence.shape == one.mask.shape
    both = labeler([images[0], Image.open(images[1])])
    assert [found.mask.shape for found in both] == [(48, 64), (64, 48)]
    assert np.array_equal(both[0].mask, one.mask)
    assert labeler([]) == []
    with pytest.raises(UsageError, match="is no image"):
        labeler(3)


def test_settings_of_a_config(golden_clip):
    recipe = dataset_settings("masks/voc2012", options={"tagging.templates": ["a {}."], "masks.refiner": "none"})
    labeler = ImageLabeler.from_recipe(golden_clip, recipe)
    assert labeler.config == recipe.masks
    assert labeler.vocabulary.name == "voc"


def test_the_two_stages_must_see_the_same_image(golden_clip):
    masks = MaskConfig.from_dict({"image": {"max_long_side": 32}})
    with pytest.raises(UsageError, match="set them equal"):
        ImageLabeler(golden_clip, VOCABULARY, tagging=TagCLIPConfig.from_dict(TAGGING), masks=masks)


def test_scores_that_are_not_finite(labeler, images, monkeypatch):
    monkeypatch.setattr(type(labeler._pass), "__call__", lambda self, inputs: [None])
    with pytest.raises(ImageError, match=r"0\.png: its scores are not finite"):
        labeler(images[0])


@pytest.fixture(scope="module")
def tagged(labeler, images):
    """An image with tags; its mask has some label beside the background."""
    return next(found for found in labeler(images) if found.tags and found.mask.any())


def test_the_plot_has_a_panel_per_tag_and_a_legend_of_the_labels(tagged):
    found = tagged
    figure = found.plot()
    titles = [axes.get_title() for axes in figure.axes]
    best = sorted(found.tags, key=lambda name: -found.scores[name])
    assert titles == ["image", *(f"{name} {found.scores[name]:.2f}" for name in best), "mask"]
    labels = [VOCABULARY.label_names[label] for label in np.unique(found.mask) if label not in (0, 255)]
    expected = labels + ["ignored"] * bool((found.mask == 255).any())
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == expected
    assert len(found.plot(max_maps=1).axes) == 3


def test_the_plot_paints_the_mask_in_the_vocabularys_colours(tagged):
    found = tagged
    picture = found.plot().axes[-1].get_images()[0].get_array()
    background = found.mask == 0
    assert np.array_equal(picture[background], found.image[background])
    for label in np.unique(found.mask[(found.mask != 0) & (found.mask != 255)]).tolist():
        inside = found.mask == label
        expected = found.image[inside] * 0.4 + VOCABULARY.label_palette[label] * 0.6
        assert np.abs(picture[inside] - expected).max() <= 1

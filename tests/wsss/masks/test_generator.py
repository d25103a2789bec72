"""MaskGenerator against the golden cases, and what does not depend on what."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tagclip.clip import AttentionRequest, Trunk
from tagclip.errors import ImageError, UsageError, VocabularyError
from tagclip.vocabulary import Vocabulary
from tests.golden import golden_cases, golden_settings, golden_text
from wsss import MaskConfig, MaskGenerator
from wsss.maps.gradcam import scale_to_unit
from wsss.masks.label_map import mask_from_maps


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.named("voc")


@pytest.fixture(scope="module")
def reference(golden_clip, vocabulary):
    return MaskGenerator(golden_clip, vocabulary, config=golden_settings("voc").masks)


@pytest.fixture(scope="module")
def generator(golden_clip, vocabulary):
    return MaskGenerator(golden_clip, vocabulary, config=golden_settings("voc", "default").masks)


@pytest.fixture(scope="module")
def scene():
    return next(case for case in golden_cases("cam") if case.name == "scene0_224x224").image()


def unit(maps):
    return scale_to_unit(torch.from_numpy(maps)).numpy()


def test_golden_text(reference):
    expected = golden_text("cam")
    assert np.abs(reference.source.tag_rows.numpy() - expected["voc"]).max() <= 1e-5
    assert np.abs(reference.source.background_rows.numpy() - expected["voc_background"]).max() <= 1e-5


@pytest.mark.pydensecrf
@pytest.mark.parametrize("case", golden_cases("cam"), ids=str)
def test_golden_images(reference, vocabulary, case):
    golden = case.arrays()
    result = reference(case.image(), tags=[vocabulary.names[index] for index in golden["ids"]])
    assert np.abs(result.raw - golden["cam"]).max() <= 1e-4
    assert np.abs(result.probabilities - golden["probs"]).max() <= 1e-4
    assert np.abs(result.refined - golden["refined"]).max() <= 1e-3
    assert np.abs(result.maps - unit(golden["refined"])).max() <= 1e-3
    assert (result.labels == golden["crf_label"]).mean() >= 0.999
    assert ((result.mask != 255) == golden["crf_confident"]).mean() >= 0.999
    assert np.array_equal(result.mask[result.mask != 255], result.labels[result.mask != 255])


@pytest.mark.parametrize("case", golden_cases("cam"), ids=str)
def test_golden_labels_without_crf(vocabulary, case):
    golden = case.arrays()
    config = MaskConfig.from_dict({"refiner": "none", "confidence": None}, golden_settings("voc").masks)
    found = mask_from_maps(np.asarray(case.image()), unit(golden["refined"]), golden["ids"].tolist(), config)
    assert (found.mask == golden["cam_label"]).mean() >= 0.999


def test_shapes_and_ranges(generator, scene):
    result = generator(np.asarray(scene)[:150, :201], tags=["cat", "dog", "person"])
    assert result.raw.shape == result.maps.shape == result.refined.shape == (3, 10, 13)
    assert result.mask.shape == result.labels.shape == result.confidence.shape == (150, 201)
    assert result.probabilities.shape == (3 + 25,)
    for maps in (result.raw, result.maps):
        assert maps.dtype == np.float32
        assert maps.min() >= 0
        assert maps.max() <= 1
    assert set(np.unique(result.mask)) <= {0, 8, 12, 15, 255}
    assert result.tags == ["cat", "dog", "person"]
    assert result.indices == [7, 11, 14]


def test_all_tags_at_once_and_repeats(generator, vocabulary, scene):
    every = generator(scene, tags=vocabulary.names)
    assert every.maps.shape == (20, 14, 14)
    assert generator(scene, tags=["cat", "cat"]).tags == ["cat"]


def test_no_tags(generator, scene):
    result = generator(scene, tags=[])
    assert not result.mask.any()
    assert result.maps.shape == (0, 14, 14)
    assert result.confidence.min() == 1


def test_one_name_is_one_tag_and_a_list_of_images_a_list_of_results(generator, scene):
    one = generator(scene, tags="cat")
    assert one.tags == ["cat"]
    turned = scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    both = generator([scene, turned], tags=["cat", ["dog", "cat"]])
    assert [found.tags for found in both] == [["cat"], ["dog", "cat"]]
    assert np.array_equal(both[0].mask, one.mask)
    assert np.array_equal(both[1].maps, generator(turned, tags=["dog", "cat"]).maps)
    assert generator([], tags=[]) == []


def test_lists_of_images_need_an_entry_of_tags_each(generator, scene):
    with pytest.raises(UsageError, match="tags: 'cat' for a list of 2 images; give one entry per image"):
        generator([scene, scene], tags="cat")
    with pytest.raises(UsageError, match="tags: 1 entries for a list of 2 images"):
        generator([scene, scene], tags=[["cat", "dog"]])
    with pytest.raises(UsageError, match="scores: 2 entries for a list of 1 images"):
        generator([scene], tags=["cat"], scores=[[0.5], [0.5]])
    with pytest.raises(UsageError, match=r"tags: \['cat'\] is not a name"):
        generator(scene, tags=[["cat"]])


def test_scores_of_a_list_of_images(golden_clip, vocabulary, scene):
    config = MaskConfig.from_dict({"refiner": "none", "score_power": 1.0}, MaskConfig.preset())
    generator = MaskGenerator(golden_clip, vocabulary, config=config)
    alone = generator(scene, tags=["cat", "dog"], scores=[0.5, 1.0])
    listed = generator([scene], tags=[["cat", "dog"]], scores=[[0.5, 1.0]])[0]
    assert np.array_equal(listed.maps, alone.maps)
    assert alone.maps[0].max() == pytest.approx(0.5, abs=1e-3)


def test_tag_outside_the_vocabulary(generator, scene):
    with pytest.raises(VocabularyError, match="unicorn"):
        generator(scene, tags=["cat", "unicorn"])


def test_bad_image(generator, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"not an image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        generator(path, tags=["cat"])


def test_maps_do_not_depend_on_the_rest_of_the_batch(generator, scene):
    """Given one trunk, image by image: bit for bit."""
    source = generator.source
    rgb = np.asarray(scene)
    batch = torch.stack([source.prepare(image) for image in (rgb, rgb[::-1].copy(), rgb[:, ::-1].copy())])
    trunk = source.trunk(batch)
    together = source.maps_from_trunk(trunk, [[1, 15], [], [4]])
    span = source.request.ranges[0]
    for index, tags in enumerate([[1, 15], [], [4]]):
        one = slice(index, index + 1)
        part = Trunk(trunk.tokens[one].clone(), trunk.grid, affinity={span: trunk.affinity[span][one].clone()})
        alone = source.maps_from_trunk(part, [tags])[0]
        for name in ("raw", "refined", "maps", "probabilities"):
            assert np.array_equal(getattr(alone, name), getattr(together[index], name)), name


def test_shared_trunk_gives_the_same_maps(generator, scene):
    source = generator.source
    """The trunk may collect more than stage two asks for."""
    image = source.prepare(np.asarray(scene))[None]
    rounding = source.config.image.position_rounding
    request = AttentionRequest(votes=True, ranges=((9, 11), *source.request.ranges))
    shared = source.clip.trunk(image, request, position_rounding=rounding)
    expected = source.maps_from_trunk(source.trunk(image), [[1, 15]])[0]
    actual = source.maps_from_trunk(shared, [[1, 15]])[0]
    assert np.abs(actual.maps - expected.maps).max() <= 1e-5
    with pytest.raises(UsageError, match="pass `request`"):
        source.maps_from_trunk(source.clip.trunk(image, AttentionRequest()), [[1]])
    with pytest.raises(UsageError, match="2 lists of tags"):
        source.maps_from_trunk(shared, [[1], [2]])


def test_long_images_are_capped_but_masks_are_not(golden_clip, vocabulary, scene):
    config = MaskConfig.from_dict({"image": {"max_long_side": 64}}, golden_settings("voc", "default").masks)
    result = MaskGenerator(golden_clip, vocabulary, config=config)(scene, tags=["bicycle"])
    assert max(result.maps.shape[1:]) == 4
    assert result.mask.shape == (224, 224)


@pytest.fixture
def turned(scene, tmp_path):
    """A photo, 224 wide and 160 high, that says to show it turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    scene.crop((0, 0, 224, 160)).save(tmp_path / "turned.jpg", exif=exif)
    return tmp_path / "turned.jpg"


def test_exif_turns_the_mask(generator, turned):
    assert generator(turned, tags=["bicycle"]).mask.shape == (224, 160)


@pytest.mark.pydensecrf
def test_exif_is_nothing_to_the_reference(reference, turned):
    assert reference(turned, tags=["bicycle"]).mask.shape == (160, 224)


def test_pamr_and_no_refinement(golden_clip, vocabulary, scene):
    base = golden_settings("voc", "default").masks
    masks = {}
    for refiner in ("crf", "pamr", "par", "none"):
        config = MaskConfig.from_dict({"refiner": refiner, "confidence": None}, base)
        masks[refiner] = MaskGenerator(golden_clip, vocabulary, config=config)(scene, tags=["bicycle", "sheep"]).mask
    assert not np.array_equal(masks["pamr"], masks["none"])
    assert (masks["pamr"] == masks["none"]).mean() > 0.5


def test_stuff_has_no_background(golden_clip, scene):
    generator = MaskGenerator(golden_settings("cocostuff", "default").maps(golden_clip))
    names = generator.vocabulary.names
    result = generator(scene, tags=[names[3], names[120]])
    assert set(np.unique(result.mask)) <= {3, 120, 255}
    assert generator.config.affinity.box_threshold == 0.7
    assert (generator(scene, tags=[]).mask == 255).all()


def test_probability_maps_on_request(generator, scene):
    assert generator(scene, tags=["bicycle"]).label_probabilities is None
    result = generator(scene, tags=["bicycle"], keep_probabilities=True)
    assert result.label_probabilities.shape == (2, 224, 224)
    assert np.array_equal(result.confidence, result.label_probabilities.max(axis=0))


def test_crf_workers_need_no_torch():
    code = "import wsss.masks.label_map, sys; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

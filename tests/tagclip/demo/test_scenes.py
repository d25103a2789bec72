"""Demo scenes: deterministic, with masks and labels that agree with the picture."""

import numpy as np
import pytest
from PIL import Image

from tagclip.demo.backgrounds import KINDS, BackgroundBank, render_background
from tagclip.demo.dataset import write_scenes
from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.demo.sprites import CELL, STYLES, SpriteSet, crop_to_alpha, demo_names, pack_atlas
from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary

SMALL = SceneConfig(side=(96, 128), objects=(1, 2), object_side=(32, 60))


def test_every_voc_class_has_sprites_in_every_style():
    voc = [item for item in demo_names().objects if item.voc]
    assert [item.name for item in voc] == list(Vocabulary.named("voc").names)
    for style in STYLES:
        sprites = SpriteSet(style)
        for item in demo_names().objects:
            assert sprites.codes_of(item), (style, item.name)


@pytest.mark.parametrize("style", STYLES)
def test_sprites_are_cut_to_their_visible_pixels(style):
    sprite = SpriteSet(style)["1f697"]
    assert sprite.dtype == np.uint8
    assert max(sprite.shape[:2]) <= CELL
    for edge in (sprite[0], sprite[-1], sprite[:, 0], sprite[:, -1]):
        assert edge[:, 3].max() > 16


def test_atlas_keeps_its_sprites_apart():
    blocks = {str(k): Image.new("RGBA", (40, 20), (k, 0, 0, 255)) for k in range(5)}
    atlas = np.asarray(pack_atlas(blocks, columns=2))
    assert atlas.shape == (3 * CELL, 2 * CELL, 4)
    for k in range(5):
        cell = atlas[k // 2 * CELL : (k // 2 + 1) * CELL, k % 2 * CELL : (k % 2 + 1) * CELL]
        assert crop_to_alpha(cell).shape == (CELL // 2, CELL, 4)
        assert cell[:10, :10, 0].max() == k


def test_unknown_style_and_name_are_named():
    with pytest.raises(UsageError, match="crayon"):
        SpriteSet("crayon")
    with pytest.raises(UsageError, match="unobtainium"):
        demo_names().object("unobtainium")


@pytest.mark.parametrize("kind", KINDS)
def test_backgrounds_have_texture_and_depend_on_the_generator(kind):
    first = render_background(kind, 60, 80, np.random.default_rng(1))
    again = render_background(kind, 60, 80, np.random.default_rng(1))
    assert first.shape == (60, 80, 3)
    assert first.std() > 2
    np.testing.assert_array_equal(first, again)
    assert (first != render_background(kind, 60, 80, np.random.default_rng(2))).any()


def test_bank_cuts_windows_of_any_size_up_to_its_own():
    bank = BackgroundBank(0, per_kind=1, side=64)
    for size in ((10, 10), (64, 30), (90, 90)):
        assert bank.cut("sky", *size, np.random.default_rng(0)).shape == (*size, 3)


def test_a_scene_depends_on_seed_and_index_alone():
    renderer, other = SceneRenderer(SMALL, seed=3), SceneRenderer(SMALL, seed=3)
    later = [renderer(i) for i in (0, 1, 2)][2]
    np.testing.assert_array_equal(other(2).image, later.image)
    assert (SceneRenderer(SMALL, seed=4)(2).image.shape, SceneRenderer(SMALL, seed=4)(2).objects) != (
        later.image.shape,
        later.objects,
    )


@pytest.mark.parametrize("augment", [False, True])
def test_mask_areas_and_objects_agree(augment):
    config = SceneConfig(side=(160, 200), objects=(3, 3), object_side=(50, 90), augment=augment, voc_share=0.5)
    renderer = SceneRenderer(config, seed=7)
    for index in range(8):
        scene = renderer(index)
        assert scene.image.shape[:2] == scene.mask.shape
        assert min(scene.mask.shape) >= 160
        assert max(scene.mask.shape) <= 200
        assert len(set(scene.objects)) == len(scene.objects) == len(scene.areas) >= 1
        for k, area in enumerate(scene.areas):
            assert area == (scene.mask == k + 1).sum() > 0
        assert set(scene.backgrounds) <= set(KINDS)


def test_objects_change_the_picture_where_the_mask_says():
    config = SceneConfig(side=(160, 160), square=True, objects=(1, 1), object_side=(80, 100), horizon_share=0.0)
    renderer = SceneRenderer(config, seed=1)
    scene, empty = renderer(0), None
    rng = np.random.default_rng([1, 0])
    rng.integers(160, 161)
    empty, _ = renderer._background(rng, config, 160, 160)
    changed = np.abs(scene.image.astype(int) - empty).sum(-1) > 0
    assert changed[scene.mask > 0].mean() > 0.9
    assert changed[scene.mask == 0].mean() < 0.05


def test_objects_that_run_out_of_the_picture_touch_its_edge():
    config = SceneConfig(side=(96, 96), square=True, objects=(1, 1), object_side=(140, 160), bleed=True)
    renderer = SceneRenderer(config, seed=3)
    for index in range(10):
        scene = renderer(index)
        edges = np.concatenate([scene.mask[0], scene.mask[-1], scene.mask[:, 0], scene.mask[:, -1]])
        assert edges.any()
        assert scene.areas == [int((scene.mask == 1).sum())]


def test_fewer_classes_than_objects_end_with_all_of_them(tmp_path):
    vocabulary = Vocabulary(["pizza", "guitar"])
    config = SceneConfig(side=(200, 200), objects=(4, 4), object_side=(40, 50))
    write_scenes(tmp_path, 2, config, vocabulary=vocabulary)
    assert (tmp_path / "train_labels.txt").read_text().splitlines() == ["train_00000 0 1", "train_00001 0 1"]


def test_data_set_is_voc_layout(tmp_path):
    write_scenes(tmp_path, 3, SMALL, seed=2, split="val")
    ids = (tmp_path / "ImageSets/Segmentation/val.txt").read_text().split()
    assert ids == ["val_00000", "val_00001", "val_00002"]
    labels = dict(line.split(maxsplit=1) for line in (tmp_path / "val_labels.txt").read_text().splitlines())
    assert (tmp_path / "classes.txt").read_text().split() == list(Vocabulary.named("voc").names)
    for image_id in ids:
        mask = Image.open(tmp_path / f"SegmentationClass/{image_id}.png")
        assert mask.mode == "P"
        assert Image.open(tmp_path / f"JPEGImages/{image_id}.jpg").size == mask.size
        shown = sorted(set(np.unique(mask)) - {0})
        assert [c - 1 for c in shown] == [int(c) for c in labels[image_id].split()]
        assert mask.getpalette()[3:6] == [128, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"), [({"count": 0}, "at least 1"), ({"vocabulary": Vocabulary(["quark"])}, "quark")]
)
def test_data_set_refuses(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        write_scenes(tmp_path, **{"count": 1, "config": SMALL, **change})


def test_a_scene_needs_an_object():
    with pytest.raises(UsageError, match="objects per scene"):
        SceneRenderer(SceneConfig(objects=(0, 2)))

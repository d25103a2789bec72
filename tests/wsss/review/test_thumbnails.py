"""Thumbnails of all sorts of photos, and the small pictures that are laid over them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.wsss.review.page_reading import read_script
from wsss.files.map_files import StoredMaps
from wsss.files.mask_files import encode_mask
from wsss.review.thumbnails import (
    ThumbnailConfig,
    ThumbnailJob,
    ThumbnailStage,
    label_picture,
    make_thumbnail,
    rival_classes,
    thumbnail_path,
)

PALETTE = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [0, 0, 128]], np.uint8)


@pytest.fixture
def stage(tmp_path) -> ThumbnailStage:
    (tmp_path / "scratch").mkdir()
    return ThumbnailStage(
        tmp_path / "thumbs", tmp_path / "scratch", PALETTE, True, 255, True, ThumbnailConfig(side=40)
    )


def photo_of(stage, path, number=0) -> Image.Image:
    report = make_thumbnail(stage, ThumbnailJob("a", number, path, None, None))
    assert report.with_photo, report.problem
    return Image.open(thumbnail_path(stage.folder, number, ".webp"))


def values(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_files_are_in_folders_of_a_thousand(tmp_path):
    assert thumbnail_path(tmp_path, 12_345, ".webp") == tmp_path / "0012" / "345.webp"


@pytest.mark.parametrize(("size", "expected"), [((100, 50), (40, 20)), ((50, 100), (20, 40)), ((30, 20), (30, 20))])
def test_long_side(stage, tmp_path, size, expected):
    Image.new("RGB", size, (200, 30, 30)).save(tmp_path / "a.png")
    thumb = photo_of(stage, tmp_path / "a.png")
    assert (thumb.size, thumb.format) == (expected, "WEBP")


def test_a_turned_photo_is_upright_and_said_to_be_turned(stage, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb = np.zeros((400, 800, 3), np.uint8)
    rgb[:, :400] = 255  # the left half, which is the upper one once the picture is upright
    Image.fromarray(rgb).save(tmp_path / "a.jpg", exif=exif, quality=95)
    report = make_thumbnail(stage, ThumbnailJob("a", 0, tmp_path / "a.jpg", None, None))
    thumb = np.asarray(Image.open(thumbnail_path(stage.folder, 0, ".webp")).convert("L"))
    assert report.turned
    assert thumb.shape == (40, 20)
    assert thumb[:18].min() > 200
    assert thumb[22:].max() < 50


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_photo(stage, tmp_path, mode):
    suffix = ".tif" if mode == "CMYK" else ".png"
    Image.new(mode, (60, 60)).save(tmp_path / f"a{suffix}")
    assert photo_of(stage, tmp_path / f"a{suffix}").size == (40, 40)


def test_a_damaged_photo_is_said_in_one_line(stage, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image at all")
    report = make_thumbnail(stage, ThumbnailJob("a", 0, tmp_path / "a.jpg", None, None))
    assert not report.with_photo
    assert "a.jpg: not an image that can be read" in report.problem
    assert "\n" not in report.problem
    assert not thumbnail_path(stage.folder, 0, ".webp").exists()


def overlay(stage, tmp_path, mask, maps=None, classes=()):
    (tmp_path / "m.png").write_bytes(encode_mask(mask, stage.palette, stage.ignored))
    if maps is not None:
        with (tmp_path / "m.npz").open("wb") as file:
            maps.write(file)
    job = ThumbnailJob("a", 7, None, tmp_path / "m.png", tmp_path / "m.npz" if maps else None, classes)
    report = make_thumbnail(stage, job)
    return report.figures, read_script(thumbnail_path(stage.folder, 7, ".js"))


def test_label_maps_and_their_shares(stage, tmp_path):
    mask = np.zeros((20, 40), np.uint8)
    mask[:10, :20] = 2
    mask[10:, :4] = 255
    figures, content = overlay(stage, tmp_path, mask)
    assert figures.shares == ((0, 7_000), (2, 2_500), (-1, 500))
    assert (figures.has_mask, figures.has_maps, figures.has_full) == (True, False, False)
    labels = np.array(content["mask"]["labels"])
    assert (labels[values(content["mask"]["png"])] == np.where(mask == 255, -1, mask.astype(int))).all()
    assert not thumbnail_path(stage.folder, 7, ".full.js").exists()


def test_large_masks_are_kept_at_their_size_too(stage, tmp_path):
    mask = np.zeros((60, 90), np.uint8)
    mask[10:50, 30:31] = 3  # thinner than a pixel of the thumbnail
    figures, content = overlay(stage, tmp_path, mask)
    full = read_script(thumbnail_path(stage.folder, 7, ".full.js"))
    assert figures.has_full
    assert values(content["mask"]["png"]).shape == (27, 40)
    assert (np.array(full["labels"])[values(full["png"])] == mask).all()


def test_without_background_labels_are_the_classes(tmp_path, stage):
    bare = ThumbnailStage(stage.folder, stage.scratch, PALETTE[1:], False, 255, True, stage.config)
    figures, content = overlay(bare, tmp_path, np.array([[0, 2], [255, 0]], np.uint8))
    assert figures.shares == ((1, 5_000), (-1, 2_500), (3, 2_500))
    assert content["mask"]["labels"] == [-1, 1, 3]


def test_masks_of_16_bits(tmp_path, stage):
    palette = np.zeros((400, 3), np.uint8)
    many = ThumbnailStage(stage.folder, stage.scratch, palette, True, 65_535, True, stage.config)
    figures, content = overlay(many, tmp_path, np.array([[0, 399], [65_535, 255]], np.uint16))
    assert content["mask"]["labels"] == [-1, 0, 255, 399]
    assert dict(figures.shares) == {-1: 2_500, 0: 2_500, 255: 2_500, 399: 2_500}


def test_labels_of_no_class_count_as_ignored(stage, tmp_path):
    figures, _ = overlay(stage, tmp_path, np.array([[0, 9]], np.uint8))
    assert dict(figures.shares) == {0: 5_000, -1: 5_000}


def test_more_labels_than_a_palette_has(stage):
    codes = np.arange(400, dtype=np.int32).reshape(20, 20) % 300
    picture = label_picture(codes, ThumbnailStage(
        stage.folder, stage.scratch, np.zeros((301, 3), np.uint8), True, 255, True, stage.config
    ))  # fmt: skip
    shown = np.array(picture["labels"])[values(picture["png"])]
    assert len(picture["labels"]) == 256
    assert ((shown == codes) | (shown == -1)).all()
    assert (shown == codes).mean() > 0.85


def test_class_maps_best_score_first(stage, tmp_path):
    maps = np.stack([np.full((4, 6), 0.2), np.full((4, 6), 1.0)]).astype(np.float16)
    figures, content = overlay(
        stage, tmp_path, np.zeros((20, 30), np.uint8), StoredMaps(maps, np.array([0, 2]), (20, 30)), (2, 0)
    )
    assert figures.has_maps
    assert content["maps"]["classes"] == [2, 0]
    assert values(content["maps"]["png"]).tolist() == [[255] * 6] * 4 + [[51] * 6] * 4


def test_rivals_are_maps_over_the_same_pixels():
    left, right = np.zeros((4, 4)), np.zeros((4, 4))
    left[:, :2], right[:, 2:] = 1, 1
    stored = StoredMaps(np.stack([left, left / 2, right]).astype(np.float16), np.array([1, 4, 6]), (8, 8))
    assert rival_classes(stored, ThumbnailConfig()) == ((1, 4, 5_000),)


def test_damaged_masks_and_maps_are_left_out(stage, tmp_path):
    for name in ("m.png", "m.npz"):
        (tmp_path / name).write_bytes(b"damaged")
    report = make_thumbnail(stage, ThumbnailJob("a", 0, None, tmp_path / "m.png", tmp_path / "m.npz"))
    assert (report.figures.has_mask, report.figures.has_maps, report.figures.shares) == (False, False, ())
    assert not thumbnail_path(stage.folder, 0, ".js").exists()

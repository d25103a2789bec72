"""Decoding and preparing: every mode becomes the same RGB picture, and bad files one clear error."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from tagclip.errors import ImageError
from tagclip.images import Size, decode_image, image_size, prepare_image, target_size
from tests.bad_images import scene, write_bad, write_good

# Kind of file -> largest mean difference to the picture it was made from, in grey levels.
COLOUR = {"rgb": 3, "palette": 12, "cmyk": 4, "webp": 0, "bmp": 0, "animated": 12}
GREY = {"grayscale": 0, "sixteen_bit": 0, "sixteen_bit_tiff": 0}
BAD = ["truncated", "header_only", "empty", "text", "noise", "bomb", "program"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_good(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    return write_bad(tmp_path_factory.mktemp("bad"))


def difference(first, second):
    assert first.shape == second.shape
    return np.abs(first.astype(int) - second.astype(int)).mean()


@pytest.mark.parametrize(("kind", "most"), COLOUR.items())
def test_colour_files(good, kind, most):
    rgb = decode_image(good[kind])
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert difference(rgb, scene()) <= most


@pytest.mark.parametrize(("kind", "most"), GREY.items())
def test_grey_files(good, kind, most):
    grey = np.asarray(Image.fromarray(scene()).convert("L"))
    assert difference(decode_image(good[kind]), np.repeat(grey[..., None], 3, axis=2)) <= most


def test_every_good_file_becomes_rgb_of_the_announced_size(good):
    for kind, path in good.items():
        rgb = decode_image(path)
        size = image_size(path)
        assert rgb.shape == (size.height, size.width, 3), kind
        assert rgb.dtype == np.uint8, kind


def test_transparency_lies_over_white(good):
    weight = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))[..., None] / 255
    assert difference(decode_image(good["rgba"]), np.rint(scene() * weight + 255 * (1 - weight))) < 1
    assert (decode_image(good["rgba"])[:, 0] == 255).all()
    assert (decode_image(good["grey_alpha"])[:, 0] == 255).all()
    indices = np.asarray(Image.open(good["palette_transparent"]))
    assert (decode_image(good["palette_transparent"])[indices == 0] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(scene()).save(tmp_path / "turned.png", exif=exif)
    upright = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation](scene())  # fmt: skip
    assert (decode_image(tmp_path / "turned.png") == upright).all()
    assert image_size(tmp_path / "turned.png") == Size(*upright.shape[:2])
    assert (decode_image(tmp_path / "turned.png", apply_exif=False) == scene()).all()
    assert image_size(tmp_path / "turned.png", apply_exif=False) == Size(48, 64)


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_one_error_that_names_them(bad, kind):
    with pytest.raises(ImageError, match=bad[kind].name) as caught:
        decode_image(bad[kind])
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(ImageError, match=str(path)):
            decode_image(path)
        with pytest.raises(ImageError, match=str(path)):
            image_size(path)


def test_truncated_files_are_refused_by_their_body_not_their_header(bad):
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert image_size(bad["truncated"]) == Size(480, 640)


def test_pixel_limit(good):
    assert decode_image(good["rgb"], max_pixels=48 * 64).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="64 x 48 pixels, more than 3071"):
        decode_image(good["rgb"], max_pixels=48 * 64 - 1)


@pytest.mark.parametrize(
    "array",
    [
        scene(),
        scene().astype(np.uint16) * 257,
        scene() / 255,
        np.dstack([scene(), np.full((48, 64), 255, np.uint8)]),
        Image.fromarray(scene()),
        np.asfortranarray(scene()),
    ],
    ids=["uint8", "uint16", "float", "rgba", "pil", "fortran"],
)
def test_arrays_and_pil_images(array):
    assert (decode_image(array) == scene()).all()


def test_grey_arrays():
    grey = scene()[..., 0]
    for array in (grey, grey[..., None]):
        assert (decode_image(array) == grey[..., None]).all()
    assert decode_image(grey > 100).max() == 255


@pytest.mark.parametrize(
    "thing",
    [np.zeros((0, 4, 3), np.uint8), np.zeros((2, 4, 5), np.uint8), np.zeros(7, np.uint8), np.full((2, 2), 1.5),
     np.full((2, 2), np.nan), np.zeros((2, 2), np.int64), 3, None],
)  # fmt: skip
def test_things_that_are_no_image(thing):
    with pytest.raises(ImageError):
        decode_image(thing)


@pytest.mark.parametrize(
    ("height", "width", "patch", "cap", "expected"),
    [
        (224, 224, 16, None, (224, 224)),
        (225, 1, 16, None, (240, 16)),
        (375, 500, 16, 1024, (384, 512)),
        (30, 20000, 16, 1024, (16, 1024)),
        (30, 20000, 16, None, (32, 20000)),
        (2048, 1024, 14, 1024, (1036, 518)),
        (1, 1, 32, 1024, (32, 32)),
    ],
)
def test_target_size(height, width, patch, cap, expected):
    assert target_size(height, width, patch, cap) == Size(*expected)


def test_prepare_resizes_with_pil_and_normalises():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    values = prepare_image(scene(50, 70), 16, mean, std)
    assert values.shape == (3, 64, 80)
    assert values.dtype == torch.float32
    resized = np.asarray(Image.fromarray(scene(50, 70)).resize((80, 64), Image.Resampling.BICUBIC)) / 255
    expected = (resized - np.array(mean)) / np.array(std)
    assert np.abs(values.permute(1, 2, 0).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("kind", ["one_pixel", "panorama"])
def test_prepare_extreme_shapes(good, kind):
    values = prepare_image(decode_image(good[kind]), 16, (0.5,) * 3, (0.5,) * 3)
    assert values.shape == {"one_pixel": (3, 16, 16), "panorama": (3, 16, 1024)}[kind]
    assert values.isfinite().all()

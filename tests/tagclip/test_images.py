"""Decoding and preparing: every mode becomes the same RGB picture, and bad files one clear error."""

import sys
from importlib.util import find_spec

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
needs_avif = pytest.mark.skipif(find_spec("PIL._avif") is None, reason="this Pillow has no AVIF")
needs_heif = pytest.mark.skipif(find_spec("pillow_heif") is None, reason="pillow-heif is not installed")
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


AVIF = pytest.param("avif", {"quality": 100, "subsampling": "4:4:4"}, 4, marks=needs_avif)
TURNED = [  # suffix, options of Pillow, largest mean difference in grey levels
    ("png", {}, 0),
    ("jpg", {"quality": 95, "subsampling": 0}, 3),
    ("webp", {"lossless": True}, 0),
    ("tif", {}, 0),
    ("tiff", {"compression": "tiff_lzw"}, 0),
    ("tif", {"compression": "tiff_deflate"}, 0),
    AVIF,
]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "options", "most"), TURNED)
def test_exif_orientation(tmp_path, orientation, suffix, options, most):
    """Pillow turns TIFFs while it loads them, and nothing else."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(scene()).save(path, exif=exif, **options)
    upright = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }[orientation](scene())  # fmt: skip
    assert difference(decode_image(path), upright) <= most
    assert image_size(path) == Size(*upright.shape[:2])
    assert difference(decode_image(path, apply_exif=False), scene()) <= most
    assert image_size(path, apply_exif=False) == Size(48, 64)
    with Image.open(path) as image:  # a picture that the caller opened
        assert difference(decode_image(image), upright) <= most


def test_orientation_of_a_picture_that_pillow_turned_already(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene()).save(tmp_path / "turned.tif", exif=exif)
    with Image.open(tmp_path / "turned.tif") as image:
        image.load()
        assert (decode_image(image) == np.rot90(scene(), -1)).all()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_there_are_not_are_ignored(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(scene()).save(tmp_path / "odd.png", exif=exif)
    assert (decode_image(tmp_path / "odd.png") == scene()).all()


@needs_heif
@pytest.mark.parametrize("name", ["photo.heic", "photo.hif", "named_wrongly.jpg"])
def test_heic_is_read_by_its_content(tmp_path, name):
    import pillow_heif

    pillow_heif.from_pillow(Image.fromarray(scene())).save(tmp_path / name, quality=95)
    assert image_size(tmp_path / name) == Size(48, 64)
    assert difference(decode_image(tmp_path / name), scene()) <= 4


@needs_heif
def test_heic_is_upright_as_its_format_says(tmp_path):
    """What turns the picture is part of the format; the EXIF tag, which phones write as well, does not count again."""
    import pillow_heif

    exif = Image.Exif()
    exif[0x0112] = 6
    file = pillow_heif.from_pillow(Image.fromarray(scene()))
    file.save(tmp_path / "phone.heic", quality=95, exif=exif.tobytes())  # writes the turn as well
    for apply_exif in (True, False):
        assert image_size(tmp_path / "phone.heic", apply_exif=apply_exif) == Size(64, 48)
        assert difference(decode_image(tmp_path / "phone.heic", apply_exif=apply_exif), np.rot90(scene(), -1)) <= 4


def test_heic_without_pillow_heif_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(ImageError, match=r"photo.heic: .* needs pillow-heif: pip install 'tagclip-wsss\[heif\]'"):
        decode_image(tmp_path / "photo.heic")


@needs_heif
def test_damaged_heic_is_one_error(tmp_path):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(ImageError, match=r"photo\.heic") as caught:
        decode_image(tmp_path / "photo.heic")
    assert "\n" not in str(caught.value)


def test_programs_are_not_run_whatever_their_name(tmp_path):
    """Pillow opens EPS by running Ghostscript where it is installed; here it is not even looked at."""
    Image.init()
    opened = []
    factory, accept = Image.OPEN["EPS"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Image.OPEN, "EPS", (lambda *a: opened.append(1) or factory(*a), accept))
        for name in ("program.png", "program.eps"):
            Image.fromarray(scene()).save(tmp_path / name, format="EPS")
            with Image.open(tmp_path / name) as image:  # a real one, which Pillow itself takes for an image
                assert image.format == "EPS"
            opened.clear()
            with pytest.raises(ImageError, match="not an image that can be read"):
                decode_image(tmp_path / name)
            assert not opened


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


def test_thirty_two_bit_integers_are_read_as_sixteen(tmp_path):
    """Mode I: how Pillow opens some 16-bit files. v / 257, rounded to the nearest."""
    values = np.array([[0, 128, 129, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.int32)
    Image.fromarray(values).save(tmp_path / "wide.tif")
    grey = decode_image(tmp_path / "wide.tif")
    assert grey.tolist() == [[[v] * 3 for v in (0, 0, 1, 100, 101, 255)]]
    assert decode_image(Image.fromarray(values)).tolist() == grey.tolist()


@pytest.mark.parametrize("values", [(0, 65536), (-1, 5)])
def test_integers_that_do_not_fit_are_an_error(tmp_path, values):
    Image.fromarray(np.array([values], np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(ImageError, match=rf"wide.tif: values from {values[0]} to {values[1]}, which do not fit 16"):
        decode_image(tmp_path / "wide.tif")


def test_floating_point_files_hold_values_from_zero_to_one(tmp_path):
    """Mode F: 255 v, rounded to the nearest."""
    values = np.array([[0.0, 0.5 / 255 + 1e-4, 0.25, 1.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "float.tif")
    assert decode_image(tmp_path / "float.tif").tolist() == [[[v] * 3 for v in (0, 1, 64, 255)]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 255.0), "floating-point values from 0 to 255; an image has values in"),
        ((-0.5, 1.0), "floating-point values from -0.5 to 1; an image has"),
        ((0.0, np.nan), "floating-point values that are not numbers"),
        ((np.inf, 0.0), "floating-point values that are not numbers"),
    ],
)
def test_floating_point_values_beyond_are_an_error_that_says_so(tmp_path, values, message):
    array = np.array([values], np.float32)
    Image.fromarray(array).save(tmp_path / "float.tif")
    for source in (tmp_path / "float.tif", array, array.astype(np.float64), array.astype(np.float16)):
        with pytest.raises(ImageError, match=message) as caught:
            decode_image(source)
        assert "damaged" not in str(caught.value)


def test_no_memory_is_not_a_damaged_image(good, monkeypatch):
    def fail(image):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ImageError, match=r"rgb.jpg: not enough memory for 64 x 48 pixels"):
        decode_image(good["rgb"])


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

"""Every way in which a mask can be wrong is found before training, in one line."""

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import RunError
from tests.wsss.segmentation import squares
from wsss.files.sources import open_source
from wsss.segmentation.preflight import PreflightConfig, check_masks

NAMES = ("background", *squares.CLASSES)


def damage(path, kind):
    mask = np.asarray(Image.open(path))
    if kind == "size":
        Image.fromarray(mask[:-2]).save(path)
    elif kind == "id":
        changed = mask.copy()
        changed[0, 0] = 4
        Image.fromarray(changed).save(path)
    elif kind == "rgb":
        Image.open(path).convert("RGB").save(path)
    elif kind == "16 bit":
        Image.fromarray(mask.astype(np.uint16)).save(path)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:60])
    elif kind == "text":
        path.write_text("mask")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("size", r"s101.png is 64x62, but its image .*s101.png is 64x64; make the mask again"),
        ("id", r"s101.png holds id 4, but there are 4 labels \(0 background to 3 blue\); is it the right vocabulary"),
        ("rgb", r"s101.png: a RGB image holds colours, not class ids; save ids in a palette or grey PNG"),
        ("16 bit", r"s101.png is a grey image of 16 bits, but training reads 8 of them; save it as an 8-bit PNG"),
        ("truncated", r"s101.png: cannot be read as a mask .*make it again"),
        ("text", r"s101.png: not an image that can hold class ids"),
    ],
)
def test_bad_masks(tmp_path, kind, message):
    root = squares.voc_folder(tmp_path, count=3)
    damage(root / "SegmentationClass" / "s101.png", kind)
    with pytest.raises(RunError, match=message) as caught:
        check_masks(open_source(root), NAMES)
    assert "\n" not in str(caught.value)


def test_further_bad_masks_are_counted(tmp_path):
    root = squares.voc_folder(tmp_path, count=4)
    for id_ in ("s100", "s101", "s103"):
        damage(root / "SegmentationClass" / f"{id_}.png", "rgb")
    with pytest.raises(RunError, match=r"s100.png: .*\(2 more masks are bad\)"):
        check_masks(open_source(root), NAMES)


def test_bad_image(tmp_path):
    root = squares.voc_folder(tmp_path, count=2)
    (root / "JPEGImages" / "s100.png").write_bytes(b"")
    with pytest.raises(RunError, match=r"image .*s100.png"):
        check_masks(open_source(root), NAMES)


def test_missing_mask(tmp_path):
    root = squares.voc_folder(tmp_path, count=2)
    (root / "list.txt").write_text("s100\ns101\n")
    (root / "SegmentationClass" / "s101.png").unlink()
    with pytest.raises(RunError, match="1 of 2 images have no mask: s101"):
        check_masks(open_source(root, ann_file="list.txt"), NAMES)


def test_nothing_but_ignored_pixels(tmp_path):
    root = squares.voc_folder(tmp_path, count=2)
    for path in (root / "SegmentationClass").iterdir():
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(path)
    with pytest.raises(RunError, match=r": the masks hold nothing but 255 \(ignored\)"):
        check_masks(open_source(root), NAMES)


def test_good_masks_are_counted(tmp_path):
    root = squares.voc_folder(tmp_path, count=2)
    mask = np.zeros((64, 64), np.uint8)
    mask[:32] = 255
    Image.fromarray(mask).save(root / "SegmentationClass" / "s100.png")
    seen = []
    report = check_masks(open_source(root), NAMES, progress=seen.append)
    assert report.images == 2
    assert report.pixels.sum() + report.ignored == 2 * 64 * 64
    assert report.ignored_share == 0.25
    assert seen == [1, 2]


def test_headers_only_finds_sizes_but_not_ids(tmp_path):
    root = squares.voc_folder(tmp_path, count=2)
    damage(root / "SegmentationClass" / "s100.png", "id")
    config = PreflightConfig(ids=False)
    assert check_masks(open_source(root), NAMES, config).pixels.sum() == 0
    damage(root / "SegmentationClass" / "s101.png", "size")
    with pytest.raises(RunError, match="64x62"):
        check_masks(open_source(root), NAMES, config)


@pytest.mark.parametrize(("apply_exif", "size"), [(True, (40, 20)), (False, (20, 40))])
def test_turned_photos(tmp_path, apply_exif, size):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "SegmentationClass").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 40)).save(tmp_path / "JPEGImages" / "x.jpg", exif=exif)
    Image.new("L", size).save(tmp_path / "SegmentationClass" / "x.png")
    report = check_masks(open_source(tmp_path), NAMES, PreflightConfig(apply_exif=apply_exif))
    assert report.images == 1


@pytest.mark.parametrize(
    ("apply_exif", "size", "message"),
    [
        (True, (20, 40), r"x.png is 20x40, but its image .*x.jpg is 40x20: it was drawn on the photo as it is stored, "
         r"which its EXIF orientation turns; turn the mask as well, or .*apply_exif=False"),
        (False, (40, 20), r"x.png is 40x20, but its image .*x.jpg is 20x40: it was drawn on the upright photo, .*"
         r"apply_exif=True"),
    ],
)  # fmt: skip
def test_masks_of_the_photo_before_or_after_it_was_turned(tmp_path, apply_exif, size, message):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "SegmentationClass").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 40)).save(tmp_path / "JPEGImages" / "x.jpg", exif=exif)
    Image.new("L", size).save(tmp_path / "SegmentationClass" / "x.png")
    with pytest.raises(RunError, match=message):
        check_masks(open_source(tmp_path), NAMES, PreflightConfig(apply_exif=apply_exif))


def test_a_turned_mask_of_a_photo_without_orientation(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "SegmentationClass").mkdir()
    Image.new("RGB", (20, 40)).save(tmp_path / "JPEGImages" / "x.jpg")
    Image.new("L", (40, 20)).save(tmp_path / "SegmentationClass" / "x.png")
    with pytest.raises(RunError, match="one is the other turned; turn the mask, do not scale it"):
        check_masks(open_source(tmp_path), NAMES)


def test_binary_masks(tmp_path):
    root = squares.voc_folder(tmp_path, count=2)
    for path in (root / "SegmentationClass").iterdir():
        Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32))).save(path)
    with pytest.raises(RunError, match=r"hold nothing but 0 and 255, and 255 means ignored; .*write 1 instead of 255"):
        check_masks(open_source(root), NAMES)

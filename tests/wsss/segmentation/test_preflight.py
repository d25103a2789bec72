"""Every way in which a mask can be wrong is found before training, in one line."""

import struct
import zlib

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


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_masks_of_any_depth_are_trained_on_as_they_are_evaluated(tmp_path, bits):
    from mmseg.utils import register_all_modules

    from wsss.files.mask_files import read_mask
    from wsss.mmseg_plugin import PseudoMaskDataset
    from wsss.segmentation.train_settings import TrainRequest, resolve_config

    root = squares.voc_folder(tmp_path / "voc", count=2)
    wanted = np.arange(64 * 64).reshape(64, 64) % min(2**bits, 4)
    stored = np.where(wanted == 3, 65535 if bits == 16 else 3, wanted).astype(np.uint16)
    wanted = np.where(stored == 65535, 255, stored)
    path = root / "SegmentationClass" / "s100.png"
    write_grey(path, stored, bits)
    report = check_masks(open_source(root), NAMES)
    assert report.ignored == (64 * 64 // 4 if bits == 16 else 0)
    assert np.array_equal(np.where(read_mask(path) == 65535, 255, read_mask(path)), wanted)
    config = tmp_path / "config.py"
    config.write_text(squares.CONFIG)
    cfg, _ = resolve_config(TrainRequest(config, root, val=root, vocabulary=list(squares.CLASSES)))
    register_all_modules(init_default_scope=True)
    settings = cfg.val_dataloader.dataset
    settings.pop("type")
    labels = PseudoMaskDataset(**settings)[0]["data_samples"].gt_sem_seg.data
    assert np.array_equal(labels[0].numpy(), wanted)


def write_grey(path, values, bits):
    """A grey PNG of 1 to 16 bits, which Pillow can write only in part."""
    height, width = values.shape
    if bits == 16:
        rows = values.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        planes = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = np.packbits(planes.reshape(height, -1).astype(np.uint8), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))

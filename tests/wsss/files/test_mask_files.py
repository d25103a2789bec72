"""Masks on disk: how deep, what is ignored, and that what is written is read back."""

import io

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import ImageError, UsageError
from tagclip.vocabulary import Vocabulary, voc_palette
from wsss.config import MaskConfig
from wsss.files.mask_files import (
    chosen_ignore_label,
    colour_table,
    count_labels,
    encode_mask,
    ignore_label,
    label_dtype,
    read_mask,
)


@pytest.mark.parametrize(
    ("labels", "dtype", "ignored"),
    [(1, np.uint8, 255), (255, np.uint8, 255), (256, np.uint16, 65535), (65535, np.uint16, 65535)],
)
def test_depth_by_the_number_of_labels(labels, dtype, ignored):
    assert (label_dtype(labels), ignore_label(labels)) == (dtype, ignored)
    assert np.iinfo(dtype).max >= labels


@pytest.mark.parametrize("decide", [label_dtype, ignore_label, MaskConfig().for_labels])
def test_more_labels_than_16_bits_hold(decide):
    with pytest.raises(UsageError, match=r"65536 labels.*use at most 65535"):
        decide(65536)


@pytest.mark.parametrize(
    ("configured", "labels", "chosen"), [(255, 255, 255), (255, 256, 65535), (254, 21, 254), (300, 21, 300)]
)
def test_the_configured_ignore_label(configured, labels, chosen):
    assert chosen_ignore_label(configured, labels) == chosen
    assert MaskConfig(ignore_label=configured).for_labels(labels).ignore_label == chosen


@pytest.mark.parametrize("configured", [-1, 0, 20, 65536])
def test_an_ignore_label_that_cannot_be(configured):
    with pytest.raises(UsageError, match=f"masks.ignore_label {configured}: .*; use 255"):
        chosen_ignore_label(configured, 21)


def test_settings_of_few_labels_stay_the_same_object():
    config = MaskConfig()
    assert config.for_labels(255) is config


def test_palette_png():
    vocabulary = Vocabulary.named("voc")
    mask = np.array([[0, 1, 15], [20, 255, 0]], np.uint8)
    content = encode_mask(mask, vocabulary.label_palette)
    assert content == encode_mask(mask, vocabulary.label_palette)
    image = Image.open(io.BytesIO(content))
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), mask)
    colours = np.asarray(image.convert("RGB"))
    assert colours[0].tolist() == [[0, 0, 0], [128, 0, 0], [192, 128, 128]]
    assert colours[1].tolist() == [[0, 64, 128], [224, 224, 192], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_label_is_read_back(dtype, tmp_path):
    mask = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(16, -1)
    (tmp_path / "mask.png").write_bytes(encode_mask(mask, np.zeros((200, 3), np.uint8)))
    back = read_mask(tmp_path / "mask.png")
    assert back.dtype == dtype
    assert np.array_equal(back, mask)


def test_a_16_bit_mask_of_small_labels_stays_16_bits(tmp_path):
    (tmp_path / "mask.png").write_bytes(encode_mask(np.zeros((3, 4), np.uint16), np.zeros((300, 3), np.uint8)))
    assert read_mask(tmp_path / "mask.png").dtype == np.uint16
    assert Image.open(tmp_path / "mask.png").mode.startswith("I;16")


def test_labels_of_another_dtype_are_refused():
    with pytest.raises(UsageError, match="mask of int64"):
        encode_mask(np.array([[280]]), np.zeros((3, 3), np.uint8))


def test_ids_that_no_mask_holds(tmp_path):
    Image.fromarray(np.array([[70000]], np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(ImageError, match="70000; a mask holds 0 to 65535"):
        read_mask(tmp_path / "deep.tif")


def test_many_labels_have_colours_of_their_own():
    palette = voc_palette(65535)
    table = colour_table(np.dtype(np.uint16), palette)
    assert len(np.unique(table, axis=0)) == 65536
    assert table[65535].tolist() == voc_palette(65536)[65535].tolist()
    assert colour_table(np.dtype(np.uint8), palette[:21])[255].tolist() == voc_palette(256)[255].tolist()


def test_counts_by_label():
    assert count_labels(np.array([[0, 299], [299, 65535]], np.uint16)) == {0: 1, 299: 2, 65535: 1}

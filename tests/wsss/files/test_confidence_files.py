"""Confidence of masks: eight bits, and back."""

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import ImageError
from wsss.files.confidence_files import encode_confidence, read_confidence
from wsss.files.mask_files import encode_mask


def test_probabilities_come_back_within_half_a_step(tmp_path):
    wanted = np.random.default_rng(0).random((40, 30), dtype=np.float32)
    wanted[0, :4] = 0, 1, -0.1, 1.2
    path = tmp_path / "a.png"
    path.write_bytes(encode_confidence(wanted))
    found = read_confidence(path)
    assert found.dtype == np.float32
    assert found[0, :4].tolist() == [0, 1, 0, 1]
    assert np.abs(found - wanted.clip(0, 1)).max() <= 1 / 510 + 1e-6
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("L", (30, 40))
        assert (np.asarray(image) == np.rint(255 * wanted.clip(0, 1))).all()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ImageError, match=r"a\.png"):
        read_confidence(path)
    path.write_bytes(encode_mask(np.zeros((4, 4), np.uint8), np.zeros((2, 3), np.uint8)))
    with pytest.raises(ImageError, match="not a grey PNG of 8 bits"):
        read_confidence(path)
    path.write_bytes(encode_mask(np.zeros((4, 4), np.uint16), np.zeros((2, 3), np.uint8)))
    with pytest.raises(ImageError, match="not a grey PNG of 8 bits"):
        read_confidence(path)

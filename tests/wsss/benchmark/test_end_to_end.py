"""The published scripts and `tagclip run` on the same photos: the parts that need no large model."""

import numpy as np
import pytest
from PIL import Image

from wsss.benchmark.end_to_end import EndToEnd, same_pixels, side_table


def test_equal_pixels_are_counted_over_all_photos(tmp_path):
    for side in ("ours", "theirs"):
        (tmp_path / side).mkdir()
        Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / side / "a.png")
        mask = np.array([[0, 1], [2, 3]] if side == "ours" else [[0, 1], [2, 0]], np.uint8)
        Image.fromarray(mask).save(tmp_path / side / "b.png")
    assert same_pixels(tmp_path / "ours", tmp_path / "theirs") == pytest.approx(9 / 10)


def test_table():
    sides = [EndToEnd("published scripts", {2: 20.0, 6: 36.0}, 4.0, 1.0, 1.0),
             EndToEnd("float32", {2: 14.0, 6: 22.0}, 2.0, 2.0, 0.9999)]  # fmt: skip
    assert side_table(sides).splitlines()[-1] == "| float32 | 14.0 | 22.0 | 2.00 | 2.00 | 99.990% |"

"""Run lengths, boxes and polygons give the regions again, by the readers' own rules."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_masks

from wsss.export.label_studio import brush_rle
from wsss.export.mask_regions import (
    bounding_box,
    bridged,
    coco_rle,
    connected_parts,
    edge_rings,
    pixel_rings,
    ring_area,
    row_runs,
)

regions = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(lambda region: region.any())


@settings(max_examples=150, deadline=None)
@given(regions)
def test_parts_are_the_region_again(region):
    parts = list(connected_parts(region))
    assert np.array_equal(np.sum(parts, axis=0), region)
    for part in parts:
        assert cv2.connectedComponents(part.astype(np.uint8), connectivity=8)[0] == 2


@settings(max_examples=150, deadline=None)
@given(regions)
def test_coco_run_lengths_are_ascii_and_decode(region):
    rle = coco_rle(region)
    assert rle["counts"].isascii()
    assert rle["size"] == list(region.shape)
    assert np.array_equal(coco_masks.decode(rle).astype(bool), region)
    assert tuple(coco_masks.toBbox(rle)) == bounding_box(region)


@settings(max_examples=150, deadline=None)
@given(regions)
def test_row_runs_start_with_zeros(region):
    runs = row_runs(region)
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    assert np.array_equal(values.reshape(region.shape).astype(bool), region)
    assert all(run > 0 for run in runs[1:])


def test_row_runs_of_a_known_mask():
    assert row_runs(np.array([[0, 1], [1, 0]], bool)) == [1, 2, 1]
    assert row_runs(np.array([[1, 1], [0, 0]], bool)) == [0, 2, 2]


@settings(max_examples=200, deadline=None)
@given(regions)
def test_edges_bridged_give_the_part_again_to_pycocotools(region):
    """Holes, islands and corners that touch included."""
    height, width = region.shape
    for part in connected_parts(region):
        rings = edge_rings(part)
        assert ring_area(rings[0]) > 0
        assert all(ring_area(ring) < 0 for ring in rings[1:])
        assert sum(map(ring_area, rings)) == part.sum()
        polygon = bridged(rings).ravel().astype(float).tolist()
        found = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects([polygon], height, width)))
        assert np.array_equal(found.astype(bool), part)


@settings(max_examples=150, deadline=None)
@given(regions)
def test_rings_through_pixels_give_the_part_again_to_opencv(region):
    for part in connected_parts(region):
        rings = pixel_rings(part)
        painted = np.zeros(part.shape, np.uint8)
        cv2.fillPoly(painted, [ring.astype(np.int32) for ring in rings], 1)
        assert np.array_equal(painted.astype(bool), part)


def test_a_ring_with_a_hole_is_one_polygon_for_opencv():
    part = np.zeros((40, 50), bool)
    part[5:30, 6:44] = True
    part[10:20, 15:30] = False
    part[24:27, 36:40] = False
    polygon = bridged(pixel_rings(part))
    painted = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(painted, [polygon.astype(np.int32)], 1)
    assert np.array_equal(painted.astype(bool), part)
    filled = part.copy()
    filled[5:30, 6:44] = True
    assert not np.array_equal(filled, part)


def decode_brush(stream: list[int]) -> np.ndarray:
    """Label Studio's decoder, after the TypeScript in its converter's docstring."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    size, word = read(32), read(5) + 1
    sizes, out = [read(4) + 1 for _ in range(4)], []
    while len(out) < size:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        out += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    return np.array(out, np.uint8)


@settings(max_examples=60, deadline=None)
@given(regions)
def test_brushes_decode_to_four_equal_channels(region):
    values = decode_brush(brush_rle(region)).reshape(*region.shape, 4)
    assert (values == values[..., :1]).all()
    assert np.array_equal(values[..., 3], region.astype(np.uint8) * 255)


@pytest.mark.parametrize("pixels", [16_383, 16_384, 16_385, 40_000])
def test_long_runs_of_a_brush_are_split(pixels):
    """Lengths end at 65,536 values, 16,384 pixels; the converter's own encoder goes wrong there."""
    region = np.ones((1, pixels), bool)
    assert decode_brush(brush_rle(region)).tolist() == [255] * (4 * pixels)

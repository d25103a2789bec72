"""Vectorised boxes equal the external contours of one map at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tagclip.boxes import box_masks, fill_boxes, scale_maps, threshold_maps, tight_boxes
from tests.oracle.tagclip import box_mask

SIDES = st.integers(1, 9)
BINARY_STACKS = st.tuples(st.integers(1, 6), SIDES, SIDES).flatmap(lambda shape: arrays(np.bool_, shape))


@settings(max_examples=300, deadline=None)
@given(binary=BINARY_STACKS, clip_last=st.booleans())
def test_filled_boxes_equal_rectangles_of_external_contours(binary, clip_last):
    expected = [box_mask(cells.astype(np.float32), 0.5, clip_last) > 0 for cells in binary]
    np.testing.assert_array_equal(fill_boxes(binary, clip_last), np.stack(expected))


@settings(max_examples=100, deadline=None)
@given(
    values=st.tuples(SIDES, SIDES).flatmap(lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1, width=32))),
    threshold=st.floats(0, 1),
)
def test_thresholds_equal_the_published_quantisation(values, threshold):
    got = box_masks(torch.from_numpy(values), threshold, clip_last=True)
    np.testing.assert_array_equal(got.numpy(), box_mask(values, threshold) > 0)


def test_island_in_the_hole_of_a_ring_lies_in_the_ring_s_rectangle():
    ring = np.zeros((9, 9), dtype=bool)
    ring[1:8, 1:8] = True
    ring[2:7, 2:7] = False
    island = ring.copy()
    island[4, 4] = True
    expected = np.zeros((9, 9), dtype=bool)
    expected[1:8, 1:8] = True
    for binary in (ring, island):
        np.testing.assert_array_equal(fill_boxes(binary[None])[0], expected)
        np.testing.assert_array_equal(box_mask(binary.astype(np.float32), 0.5, False) > 0, expected)


def test_diagonal_neighbours_are_one_region():
    binary = np.eye(4, dtype=bool)[None]
    assert fill_boxes(binary).all()


def test_neighbouring_maps_do_not_touch():
    binary = np.zeros((3, 2, 3), dtype=bool)
    binary[0, 1, 0] = binary[1, 0, 2] = True
    np.testing.assert_array_equal(fill_boxes(binary), binary)


@pytest.mark.parametrize(("clip_last", "inside"), [(True, False), (False, True)])
def test_quirk_last_row_and_column_lie_in_a_box_only_by_default(clip_last, inside, device):
    values = torch.zeros(5, 6, device=device)
    values[2:, 3:] = 1
    mask = box_masks(values, 0.5, clip_last=clip_last)
    assert mask.device.type == device.type
    assert mask[2:4, 3:5].all()
    assert bool(mask[4, 4]) is inside
    assert bool(mask[3, 5]) is inside


def test_map_without_region_has_no_box():
    assert not box_masks(torch.zeros(2, 3, 4), 0.5).any()
    assert box_masks(torch.zeros(0, 3, 4), 0.5).shape == (0, 3, 4)


def test_one_threshold_per_map(device):
    values = torch.tensor([[[0.2, 0.6, 1.0]], [[0.2, 0.6, 1.0]]], device=device)
    got = threshold_maps(values, torch.tensor([0.1, 0.7], device=device))
    assert got.tolist() == [[[True, True, True]], [[False, False, True]]]


def test_scaled_maps_span_zero_to_one_and_constant_maps_vanish(device):
    maps = torch.stack([torch.arange(6.0).reshape(2, 3) - 4, torch.full((2, 3), 7.0)]).to(device)
    scaled = scale_maps(maps)
    assert scaled[0].min() == 0
    assert scaled[0].max() == 1
    assert (scaled[1] == 0).all()


@settings(max_examples=100, deadline=None)
@given(binary=BINARY_STACKS, clip_last=st.booleans())
def test_tight_boxes_are_tight(binary, clip_last):
    _, height, width = binary.shape
    for cells, (x0, y0, x1, y1) in zip(binary, tight_boxes(torch.from_numpy(binary), clip_last=clip_last), strict=True):
        rows, columns = np.nonzero(cells)
        if not len(rows):
            assert (x0, y0, x1, y1) == (0, 0, 0, 0)
            continue
        ends = columns.max() + 1, rows.max() + 1
        if clip_last:
            ends = min(ends[0], width - 1), min(ends[1], height - 1)
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), *ends)

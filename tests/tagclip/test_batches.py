"""Batch planning."""

from hypothesis import given
from hypothesis import strategies as st

from tagclip.batches import plan_batches
from tagclip.clip import Grid

A, B = Grid(2, 3), Grid(3, 2)


def test_one_grid_a_batch_in_the_order_of_first_images():
    assert plan_batches([A, B, A, None, A, B, A], 3) == [[0, 2, 4], [1, 5], [6]]


def test_large_grids_get_smaller_batches_but_never_empty_ones():
    large = Grid(10, 10)
    assert plan_batches([large, large, A, A], 8, batch_patches=99) == [[0], [1], [2, 3]]


@given(st.lists(st.sampled_from([A, B, Grid(5, 5), None])), st.integers(1, 4))
def test_every_image_once_and_only_with_its_like(grids, size):
    batches = plan_batches(grids, size)
    assert sorted(index for batch in batches for index in batch) == [
        index for index, grid in enumerate(grids) if grid is not None
    ]
    assert all(len({grids[index] for index in batch}) == 1 and len(batch) <= size for batch in batches)


@given(st.lists(st.sampled_from([A, B])), st.integers(1, 4), st.integers(0, 10))
def test_a_longer_list_only_appends(grids, size, cut):
    whole, part = plan_batches(grids, size), plan_batches(grids[:cut], size)
    assert part == [[index for index in batch if index < cut] for batch in whole[: len(part)]]

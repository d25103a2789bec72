"""Which images go through the model together."""

from collections.abc import Sequence

from tagclip.clip.trunk import Grid


def batch_limit(grid: Grid, batch_size: int, batch_patches: int | None = None) -> int:
    """Most images of a patch grid in one batch; see `plan_batches`."""
    return batch_size if batch_patches is None else max(1, min(batch_size, batch_patches // grid.count))


def plan_batches(grids: Sequence[Grid | None], batch_size: int, batch_patches: int | None = None) -> list[list[int]]:
    """Group images of one patch grid into batches, over the whole list.

    An image's batch depends on the list alone, not on where a run was interrupted, so that a resumed run gives every
    image the same companions, and with them the same last digit.

    Args:
        grids: patch grid of each image, None for an image to leave out.
        batch_size: most images in a batch.
        batch_patches: most patches in a batch; a single image may exceed it. None for no cap.

    Returns:
        Indices into `grids`, batch by batch, in the order of each batch's first image.
    """
    open_batches: dict[Grid, list[int]] = {}
    batches: list[list[int]] = []
    for index, grid in enumerate(grids):
        if grid is None:
            continue
        limit = batch_limit(grid, batch_size, batch_patches)
        batch = open_batches.get(grid)
        if batch is None or len(batch) >= limit:
            batch = []
            open_batches[grid] = batch
            batches.append(batch)
        batch.append(index)
    return batches

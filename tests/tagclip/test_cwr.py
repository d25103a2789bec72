"""CWR: candidates, regions, crops, and the two quirks of the published code."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tagclip.clip import Grid
from tagclip.config import CWRConfig
from tagclip.cwr import cut_regions, find_candidates, find_regions, reidentify

GRID = Grid(4, 5)


def scores_with_blobs(*blobs):
    """(1, N, C) where class c is 1 on the cells of blobs[c] and a little anywhere else."""
    maps = torch.full((len(blobs), GRID.height, GRID.width), 0.01)
    for c, (rows, columns) in enumerate(blobs):
        maps[c, rows, columns] = 1.0
    return maps.flatten(1).T[None].contiguous()


def test_candidates_stand_out_of_all_patches_and_classes(device):
    local = torch.tensor([[0.9, 0.5, 0.2], [0.3, 0.2, 0.1]], device=device)
    patch_scores = torch.tensor(
        [[[0.0, 0.5, 0.2, 0.1], [0.9, 0.1, 0.1, 0.0]], [[0.3, 0.2, 0.1, 1.0], [0.1, 0.0, 0.0, 0.9]]]
    )
    assert find_candidates(local, patch_scores.to(device), 0.5).tolist() == [[True, True, False], [False, False, False]]


def test_regions_are_tight_and_ordered_by_image_then_class(device):
    patch_scores = torch.cat([scores_with_blobs((slice(1, 3), slice(2, 4)), (0, 0))] * 2).to(device)
    regions = find_regions(torch.ones(2, 2, dtype=torch.bool, device=device), patch_scores, GRID, CWRConfig())
    assert regions.image.tolist() == [0, 0, 1, 1]
    assert regions.label.tolist() == [0, 1, 0, 1]
    assert regions.boxes.tolist() == [[2, 1, 4, 3], [0, 0, 1, 1]] * 2
    assert regions.masks.sum(dim=(1, 2)).tolist() == [4, 1, 4, 1]


def test_quirk_exclusive_ends_reach_the_border_only_by_default():
    patch_scores = scores_with_blobs((slice(1, 4), slice(2, 5)))
    candidates = torch.ones(1, 1, dtype=torch.bool)
    assert find_regions(candidates, patch_scores, GRID, CWRConfig()).boxes.tolist() == [[2, 1, 5, 4]]
    clipped = find_regions(candidates, patch_scores, GRID, CWRConfig(clip_boxes=True))
    assert clipped.boxes.tolist() == [[2, 1, 4, 3]]


@pytest.mark.parametrize(("stop", "labels"), [(True, [0]), (False, [0, 2])])
def test_quirk_degenerate_box_skips_that_class_only_by_default(stop, labels, device):
    blobs = ((1, 1), (1, 4), (2, 2))  # the second one lies in the last column: no area once its end is clipped
    patch_scores = torch.cat([scores_with_blobs(*blobs), scores_with_blobs((0, 0), (0, 1), (0, 2))]).to(device)
    candidates = torch.ones(2, 3, dtype=torch.bool, device=device)
    config = CWRConfig(clip_boxes=True, stop_at_degenerate=stop)
    regions = find_regions(candidates, patch_scores, GRID, config)
    assert regions.label[regions.image == 0].tolist() == labels
    assert regions.label[regions.image == 1].tolist() == [0, 1, 2]  # the other image is not concerned


@pytest.mark.parametrize("stop", [True, False])
def test_first_entry_degenerate_and_no_candidates(stop):
    config = CWRConfig(clip_boxes=True, stop_at_degenerate=stop)
    patch_scores = scores_with_blobs((1, 4), (2, 2))
    labels = find_regions(torch.ones(1, 2, dtype=torch.bool), patch_scores, GRID, config).label.tolist()
    assert labels == ([] if stop else [1])
    assert len(find_regions(torch.zeros(1, 2, dtype=torch.bool), patch_scores, GRID, config).label) == 0


def test_crops_are_cut_in_pixels_and_brought_to_the_native_input(device):
    images = torch.rand(1, 3, GRID.height * 16, GRID.width * 16, device=device)
    patch_scores = scores_with_blobs((slice(1, 3), slice(2, 4))).to(device)
    regions = find_regions(torch.ones(1, 1, dtype=torch.bool, device=device), patch_scores, GRID, CWRConfig())
    crops, masks = cut_regions(images, regions, 16, Grid(2, 2))
    torch.testing.assert_close(crops, images[:, :, 16:48, 32:64])
    assert masks.shape == (1, 2, 2)
    assert masks.all()


@pytest.mark.parametrize("chunk_size", [1, 2, 32])
def test_final_scores_blend_each_candidate_whatever_the_chunks(golden_clip_on, chunk_size, device):
    golden_clip, generator = golden_clip_on(device), torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 64, 80, generator=generator).to(device)
    text = F.normalize(torch.randn(4, golden_clip.embed_dim, generator=generator), dim=-1).to(device)
    blobs = ((0, 0), (slice(1, 3), slice(0, 2)), (3, slice(1, 5)), (0, 4))
    patch_scores = torch.cat([scores_with_blobs(*blobs)] * 2).to(device)
    local = torch.tensor([[0.9, 0.8, 0.1], [0.0, 0.95, 0.6]], device=device)
    config = CWRConfig(chunk_size=chunk_size)
    got = reidentify(golden_clip, images, local, patch_scores, text, GRID, config)
    assert got[0, 2] == local[0, 2]
    assert got[1, 0] == local[1, 0]
    for image, label in ((0, 0), (0, 1), (1, 1), (1, 2)):
        only = torch.zeros(2, 3, dtype=torch.bool, device=device)
        only[image, label] = True
        crop, mask = cut_regions(images, find_regions(only, patch_scores, GRID, config), 16, golden_clip.native_grid)
        feature = golden_clip.encode_masked(crop, mask)
        again = (golden_clip.logit_scale * feature @ text.T).softmax(dim=-1)[0, label]
        assert float(got[image, label]) == pytest.approx(float(0.5 * local[image, label] + 0.5 * again), abs=1e-5)


def test_weight_one_keeps_the_local_scores(golden_clip):
    images = torch.zeros(1, 3, 64, 80)
    text = torch.eye(golden_clip.embed_dim)[:2]
    local = torch.tensor([[0.9]])
    patch_scores = scores_with_blobs((0, 0), (1, 1))
    config = replace(CWRConfig(), local_weight=1.0)
    assert torch.equal(reidentify(golden_clip, images, local, patch_scores, text, GRID, config), local)

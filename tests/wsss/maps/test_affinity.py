import pytest
import torch

from tagclip.boxes import box_masks
from tests.golden import golden_cases
from tests.oracle.clip_es import transition_matrix
from tests.oracle.tagclip import box_mask
from wsss.maps.affinity import refine_cams, sinkhorn
from wsss.maps.gradcam import scale_to_unit


def random_attention(size, seed=0):
    logits = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.mul(2).softmax(-1)


def test_scaling_vectors_equal_the_matrix():
    attention = random_attention(30)
    maps = torch.rand(4, 5, 6, dtype=torch.float64)
    boxes = maps > 0.4
    expected = ((maps * boxes).flatten(1) @ transition_matrix(attention).T).reshape(maps.shape)
    actual = refine_cams(maps, boxes, sinkhorn(attention))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_one_propagation_and_no_rounds():
    attention = random_attention(6)
    maps = torch.rand(1, 2, 3, dtype=torch.float64)
    symmetric = (attention + attention.T) / 2
    actual = refine_cams(maps, torch.ones_like(maps), sinkhorn(attention, 0), propagations=1)
    torch.testing.assert_close(actual.flatten(), symmetric @ maps.flatten())


def test_converges_to_doubly_stochastic():
    ones = torch.ones(1, 4, 5, dtype=torch.float64)
    error = []
    for rounds in (1, 3, 60):
        error.append((refine_cams(ones, ones, sinkhorn(random_attention(20), rounds)) - 1).abs().max())
    assert error[0] > error[1] > error[2]
    assert error[2] < 1e-10


def test_only_the_box_contributes():
    attention = random_attention(9)
    cams = torch.rand(1, 3, 3, dtype=torch.float64)
    boxes = torch.zeros(1, 3, 3, dtype=torch.bool)
    assert not refine_cams(cams, boxes, sinkhorn(attention)).any()
    boxes[0, 1, 1] = True
    elsewhere = torch.where(boxes, cams, cams * 7)
    assert torch.equal(
        refine_cams(cams, boxes, sinkhorn(attention)), refine_cams(elsewhere, boxes, sinkhorn(attention))
    )


def test_classes_do_not_depend_on_each_other():
    attention = random_attention(12).float()
    cams = torch.rand(5, 3, 4)
    boxes = cams > 0.5
    together = refine_cams(cams, boxes, sinkhorn(attention))
    for index in range(5):
        alone = refine_cams(cams[index : index + 1], boxes[index : index + 1], sinkhorn(attention))[0]
        torch.testing.assert_close(together[index], alone, rtol=1e-5, atol=1e-7)


def test_clipped_boxes_lose_the_last_row_and_column():
    """The published quirk, which the default does not have."""
    cam = torch.zeros(1, 4, 4)
    cam[0, 2:, 2:] = 1
    assert box_masks(cam, 0.4)[0].sum() == 4
    assert box_masks(cam, 0.4, clip_last=True)[0].sum() == 1
    assert (box_masks(cam, 0.4, clip_last=True)[0].numpy() == box_mask(cam[0].numpy(), 0.4)).all()


# Large cases were recorded without the N x N map; test_generator checks them from the image.
@pytest.mark.parametrize("case", [c for c in golden_cases("cam") if "affinity" in c.arrays()], ids=str)
def test_golden_affinity(case):
    arrays = case.arrays()
    cams, expected = torch.from_numpy(arrays["cam"]), torch.from_numpy(arrays["refined"])
    boxes = box_masks(cams, 0.4, clip_last=True)
    refined = refine_cams(cams, boxes, sinkhorn(torch.from_numpy(arrays["affinity"])))
    assert (refined - expected).abs().max() <= 1e-5
    assert (scale_to_unit(refined) - scale_to_unit(expected)).abs().max() <= 1e-3

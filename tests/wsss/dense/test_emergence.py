import pytest
import torch

from wsss.dense.emergence import EmergenceConfig, attention_received, global_token_blocks, strongest_received
from wsss.dense.features import prepared
from wsss.dense.strategy import get_strategy
from wsss.dense.suppression import suppression_scale


@pytest.mark.parametrize(
    ("strength", "pair"),
    [
        ([3, 3, 3, 3, 3, 9, 20, 20, 20, 20, 20, 20], (6, 7)),
        ([3, 3, 3, 9, 3, 3, 3, 3, 3, 3, 3, 3], (4, 5)),  # the first jump counts
        ([3, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9], (3, 4)),  # block 2 has too little before it to be chosen
        ([3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 3], (9, 10)),  # no jump: the largest rise
        ([3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 90], (3, 4)),  # the last block cannot start a pair
    ],
)
def test_first_jump(strength, pair):
    assert global_token_blocks(torch.tensor(strength, dtype=torch.float32)) == pair


def test_config_changes_the_answer():
    strength = torch.tensor([3, 3, 3, 3, 5, 3, 9, 9, 9, 9, 9, 9.0])
    assert global_token_blocks(strength) == (7, 8)
    assert global_token_blocks(strength, EmergenceConfig(jump=1.5)) == (5, 6)


def test_attention_received_is_the_column_mean(golden_clip, oracle_clip):
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    received = attention_received(golden_clip, images)
    assert received.shape == (2, 12, 24)
    x, _ = oracle_clip.embed(images[1], "none")
    for number in range(1, 13):
        x, attention = oracle_clip.visual_block(x, number)
        expected = attention.mean(dim=0)[1:, 1:].mean(dim=0) * 24
        assert (received[1, number - 1] - expected).abs().max() <= 1e-5


def test_strongest_received():
    received = torch.zeros(1, 2, 200)
    received[0, 0, :2] = torch.tensor([4.0, 2.0])
    assert strongest_received(received, 0.01).tolist() == [3.0, 0.0]
    assert strongest_received(received, 0.0).tolist() == [4.0, 0.0]  # never fewer than one


def test_auto_says_which_blocks_it_used(golden_clip):
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ready = prepared(golden_clip, images, get_strategy("gclip", {"blocks": "auto", "emergence": {"jump": 1.2}}))
    strength = strongest_received(attention_received(golden_clip, images), 0.01)
    assert ready.options.blocks == global_token_blocks(strength, EmergenceConfig(jump=1.2))
    assert prepared(golden_clip, images, get_strategy("gclip")).options.blocks == (6, 7)


def test_suppression_scale(golden_clip):
    block = golden_clip.blocks[8]
    norms = block.mlp.c_proj.weight.norm(dim=1)
    scale = suppression_scale(block)
    row = int(norms.argmax())
    assert scale[row].item() == pytest.approx((torch.cat([norms[:row], norms[row + 1 :]]).mean() / norms[row]).item())
    assert (scale == 1).sum() == len(scale) - 1
    assert torch.equal(suppression_scale(block, min_ratio=1e6), torch.ones_like(scale))

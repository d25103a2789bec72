"""Triton's head-averaged maps against plain products: through its interpreter on a CPU, and compiled on a GPU."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from tagclip.clip import attention

INTERPRETED = """
import torch
from tagclip.clip.mean_map_kernel import mean_maps

for batch, heads, tokens, size in ((2, 3, 7, 16), (1, 2, 70, 32), (2, 4, 129, 64)):
    joint = torch.randn(batch, tokens, 3 * heads * size, generator=torch.Generator().manual_seed(tokens)) * 2
    q, k, _ = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in joint.chunk(3, dim=-1))
    expected = (q.double() @ k.double().mT / size**0.5).softmax(-1).mean(1)[:, 1:, 1:]
    found = mean_maps(q, k)
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert (found - expected).abs().max() < 2e-6, (found - expected).abs().max()
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed here")
def test_the_kernel_interpreted():
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_kernel_compiled(device):
    if device.type != "cuda":
        pytest.skip("for a GPU")
    joint = torch.randn(3, 197, 3 * 4 * 64, generator=torch.Generator().manual_seed(0)).to(device, torch.bfloat16)
    q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in joint.chunk(3, dim=-1))
    assert attention._mean_map_kernel(device) is not None
    maps = torch.zeros(3, 196, 196, device=device)
    attended = attention.attend_with_maps(q, k, v, maps.__setitem__)
    weights = (q.float() @ k.float().mT / 8).softmax(-1)
    torch.testing.assert_close(maps, weights.mean(1)[:, 1:, 1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(attended.float(), attention.merge_heads(weights @ v.float()), rtol=0, atol=0.02)


def test_where_triton_does_not_run_plain_products_do(caplog):
    caplog.set_level("INFO", logger="tagclip")
    attention._mean_map_kernel.cache_clear()
    assert attention._mean_map_kernel(torch.device("cpu")) is None
    assert "without Triton" in caplog.text

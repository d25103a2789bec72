"""Clock, counted arithmetic, matrix-multiply peak, memory."""

import subprocess
import sys

import pytest
import torch

from tagclip.clip.int8 import Int8Layer, pick_engine
from wsss.benchmark.measure import Clock, FlopClock, PeakSettings, machine, matmul_peak

MEBIBYTE = 2**20


def test_clock_adds_up_by_stage():
    clock = Clock()
    for stage in ("a", "b", "a"):
        with clock(stage):
            pass
    assert set(clock.seconds) == {"a", "b"}
    assert min(clock.seconds.values()) > 0


def test_flop_of_every_kind_of_product():
    clock, left, right = FlopClock(), torch.randn(4, 5, 6), torch.randn(4, 6, 5)
    out = torch.empty(4, 5, 5)
    with torch.no_grad():
        with clock("bmm"):
            left @ right
        with clock("baddbmm"):
            torch.baddbmm(out, left, right, beta=0, out=out)
        with clock("linear"):
            torch.nn.functional.linear(left, torch.randn(3, 6), torch.randn(3))
        with clock("vector"):
            left[0] @ right[0, :, 0]
        with clock("attention"):
            torch.nn.functional.scaled_dot_product_attention(left[None], left[None], left[None])
        with clock("nothing"):
            left.softmax(-1)
    product = 2 * 4 * 5 * 6 * 5
    expected = {"bmm": product, "baddbmm": product, "linear": 2 * 20 * 6 * 3, "vector": 2 * 5 * 6, "nothing": 0}
    assert dict(clock.flop) == {**expected, "attention": 2 * product}


def test_flop_of_an_int8_layer():
    engine, reduce_range = pick_engine()
    layer, clock = Int8Layer(torch.randn(3, 6), None, engine, reduce_range=reduce_range), FlopClock()
    with clock("int8"):
        layer(torch.randn(4, 5, 6))
    assert clock.flop["int8"] == 2 * 20 * 6 * 3


def test_flop_of_attention_in_inference_mode():
    query, key, clock = torch.randn(1, 2, 5, 6), torch.randn(1, 2, 7, 6), FlopClock()
    with torch.inference_mode(), clock("attention"):
        torch.nn.functional.scaled_dot_product_attention(query, key, key)
    assert clock.flop["attention"] == 2 * (2 * 2 * 5 * 7 * 6)


def test_flop_of_a_gradient_taken_inside_a_stage():
    values, weight, clock = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5), FlopClock()
    with clock("forward and backward"):
        torch.autograd.grad((values @ weight).sum(), values)
    assert clock.flop["forward and backward"] == 2 * (2 * 3 * 4 * 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_matmul_peak_is_a_rate(dtype):
    rate = matmul_peak(8, 64, dtype, "cpu", PeakSettings(seconds=0.001, rounds=1, images=(1,)))
    assert 0.01 < rate < 1e5


def test_peak_memory_sees_what_was_freed():
    # In a process of its own: here, memory that earlier tests have freed would be taken again. A block that is large
    # beside the few MiB of mapped libraries that a machine short of memory takes back in between.
    code = (
        "import numpy; from wsss.benchmark.resident_memory import PeakMemory\n"
        "memory = PeakMemory(); block = numpy.ones(256 << 20, numpy.uint8); del block\n"
        "assert 220 < memory.peak - memory.start < 290, (memory.start, memory.peak)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_machine_names_no_path():
    found = machine("cpu", 2)
    assert found["threads"] == 2
    assert all("/" not in str(value) for value in found.values())

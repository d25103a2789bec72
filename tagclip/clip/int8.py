"""Linear layers of the vision tower's blocks in int8, for CPUs: a product takes about half of bfloat16's time.

Weights are quantised once, symmetric and per output channel; activations at each call, per tensor, and both come out of
it as float32 again, so that everything between the layers is float32. The float32 weights stay beside the int8 ones:
Grad-CAM, gradients and single parts of a layer read them.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor

from tagclip.clip.modules import Block
from tagclip.errors import UsageError, first_line

# Fastest first. fbgemm, for which x86 is another name on some processors, runs on those without VNNI instructions too.
ENGINES = ("onednn", "x86", "fbgemm", "qnnpack")
LARGEST = 127  # of a symmetric int8 weight
PROBE_SIDE = 64
PROBE_ERROR = 0.02  # int8 itself is off by half a percent
STORED_AS = "int8_layer"  # attribute of a weight
_engine_lock = threading.Lock()
_is_off: ContextVar[bool] = ContextVar("int8_is_off", default=False)


class Int8Layer:
    """One linear layer, packed for an engine.

    Args:
        weight: (outputs, inputs) float32, on the CPU; left alone.
        bias: (outputs,), or None.
        engine: of `torch.backends.quantized`.
        reduce_range: quantise activations to 7 bits, for processors that add two products up in 16 bits.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, engine: str, *, reduce_range: bool):
        self.bias, self._reduce_range, self._outputs = bias, reduce_range, len(weight)
        weight = weight.detach().float()
        scales = (weight.abs().amax(1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny).double()
        with _using(engine), warnings.catch_warnings():
            # PyTorch means to drop quantised tensors one day; `pick_engine` says so in one line when it has.
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            zeros = torch.zeros(len(scales), dtype=torch.int64)
            quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
            self._packed = torch.ops.quantized.linear_prepack(quantised, None if bias is None else bias.detach())

    def __call__(self, inputs: Tensor) -> Tensor:
        """inputs @ weight.T + bias, (..., inputs) -> (..., outputs) float32."""
        found = torch.ops.quantized.linear_dynamic(inputs, self._packed, self._reduce_range)
        return found.view(*inputs.shape[:-1], self._outputs)  # of no rows at all, engines drop the shape


def pack_blocks(blocks: Sequence[Block], device: torch.device) -> None:
    """From now on `int8_layer` finds the four linear layers of each block packed.

    Raises:
        UsageError: the device is no CPU, or this processor or PyTorch has no int8 products.
    """
    if device.type != "cpu":
        raise UsageError(f"--dtype int8: runs on a CPU only, not on {device}; use bfloat16 there, or --device cpu")
    engine, reduce_range = pick_engine()
    for block in blocks:
        attention, mlp = block.attn, block.mlp
        for weight, bias in (
            (attention.in_proj_weight, attention.in_proj_bias),
            (attention.out_proj.weight, attention.out_proj.bias),
            (mlp.c_fc.weight, mlp.c_fc.bias),
            (mlp.c_proj.weight, mlp.c_proj.bias),
        ):
            setattr(weight, STORED_AS, Int8Layer(weight, bias, engine, reduce_range=reduce_range))


def int8_layer(weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Int8Layer | None:
    """The packed layer of a weight and its bias; None where there is none, or gradients go through `inputs`."""
    layer = getattr(weight, STORED_AS, None)
    if layer is None or _is_off.get() or layer.bias is not bias or (torch.is_grad_enabled() and inputs.requires_grad):
        return None
    return layer


@contextmanager
def without_int8() -> Iterator[None]:
    """Inside, in this thread, packed layers compute with the float32 weights that lie beside them."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


def are_packed(blocks: Sequence[Block]) -> bool:
    """Whether blocks went through `pack_blocks`."""
    return all(hasattr(block.attn.in_proj_weight, STORED_AS) for block in blocks)


@cache
def pick_engine() -> tuple[str, bool]:
    """The first engine whose products are right here, and whether they need activations of 7 bits.

    Raises:
        UsageError: there is none.
    """
    reason = "PyTorch was built without"
    for engine in (name for name in ENGINES if name in torch.backends.quantized.supported_engines):
        try:
            for reduce_range in (False, True):
                if _is_right(engine, reduce_range):
                    return engine, reduce_range
            reason = f"{engine}'s are wrong on this processor"
        except Exception as error:  # a missing operator, function or instruction: each its own type
            reason = first_line(error)
    raise UsageError(f"--dtype int8: no int8 products here ({reason}); use float32 or bfloat16")


def _is_right(engine: str, reduce_range: bool) -> bool:
    """Largest values throughout, which overflow where two products are added up in 16 bits, beside ordinary ones."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(PROBE_SIDE, PROBE_SIDE, generator=generator)
    rows[0] = 1.0
    weight = torch.ones(PROBE_SIDE, PROBE_SIDE)
    weight[PROBE_SIDE // 2 :] = torch.rand(PROBE_SIDE // 2, PROBE_SIDE, generator=generator) * 2 - 1
    exact = rows @ weight.T
    found = Int8Layer(weight, None, engine, reduce_range=reduce_range)(rows)
    return bool(((found - exact).norm() <= PROBE_ERROR * exact.norm()).item())


@contextmanager
def _using(engine: str) -> Iterator[None]:
    """PyTorch packs for the engine of a global setting; packed weights then know theirs."""
    with _engine_lock:
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = engine
        try:
            yield
        finally:
            torch.backends.quantized.engine = before

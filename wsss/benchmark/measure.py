"""Instruments: stage clock, counted arithmetic, measured matrix-multiply peak, peak memory."""

from __future__ import annotations

import platform
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tagclip.clip.int8 import Int8Layer, pick_engine

GIGA = 1e9
MEBIBYTE = 2**20


class Clock:
    """Seconds by stage; a stage on an accelerator ends when its work there has ended."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[stage] += time.perf_counter() - start


class FlopClock(Clock):
    """Counts, in place of seconds, the floating-point operations (two a multiply-add) of each stage.

    Those of matrix products and convolutions; elementwise work, softmax and normalisation are not counted, here as in
    the usual figures.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop: Counter[str] = Counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        with _FlopMode() as mode:
            yield
        self.flop[stage] += mode.total


class _FlopMode(TorchDispatchMode):
    """torch's formulas without its `FlopCounterMode`, whose module hooks do not bear `autograd.grad` in a stage."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **kwargs, out_val=result)
        elif packet is torch.ops.aten.mv:
            self.total += 2 * args[0].numel()
        elif str(packet) == "quantized.linear_dynamic":
            self.total += 2 * args[0].numel() * result.shape[-1]
        elif packet in (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
                        torch.ops.aten.scaled_dot_product_attention):  # fmt: skip
            self.total += _attention_flop(*args[:3])
        return result


def _attention_flop(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> int:
    """Of both products, for (..., N, d) tensors. Some releases of torch have no formula for the CPU's kernel."""
    rows = query.numel() // query.shape[-1]
    return 2 * rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])


@dataclass(frozen=True)
class PeakSettings:
    """How the matrix-multiply peak is measured.

    Attributes:
        seconds: length of one measurement, long against the clock's resolution.
        rounds: measurements a shape, of which the fastest counts.
        images: multiples of one image's tokens that are multiplied at once.
    """

    seconds: float = 0.05
    rounds: int = 5
    images: tuple[int, ...] = (1, 4)


def matmul_peak(
    tokens: int, width: int, dtype: torch.dtype, device: torch.device | str, settings: PeakSettings | None = None
) -> float:
    """Highest rate of a linear layer at the shapes of a trunk's block, GFLOP/s.

    Args:
        tokens: of one image.
        width: of the model; the MLP's inner width is four times that.
        dtype: int8 stands for int8 weights and float32 activations, see `tagclip.clip.int8`.
    """
    settings, device, best = settings or PeakSettings(), torch.device(device), 0.0
    for rows in (images * tokens for images in settings.images):
        for inner, outer in ((width, 3 * width), (width, 4 * width), (4 * width, width)):
            values = torch.randn(rows, inner, device=device)
            weight = torch.randn(outer, inner, device=device)
            layer = _linear(values, weight, dtype)
            calls = 1
            while _linear_seconds(layer, device, calls) < settings.seconds:
                calls *= 2
            fastest = min(_linear_seconds(layer, device, calls) for _ in range(settings.rounds))
            best = max(best, 2 * rows * inner * outer * calls / fastest / GIGA)
    return best


def _linear(values: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    if dtype == torch.int8:
        engine, reduce_range = pick_engine()
        return partial(Int8Layer(weight, None, engine, reduce_range=reduce_range), values)
    return partial(F.linear, values.to(dtype), weight.to(dtype))


def _linear_seconds(layer: Callable[[], torch.Tensor], device: torch.device, calls: int) -> float:
    clock = Clock(device)
    with clock("linear"):
        for _ in range(calls):
            layer()
    return clock.seconds["linear"]


def machine(device: str, threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    found = {
        "processor": _processor(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if torch.device(device).type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

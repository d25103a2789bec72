"""How much memory masks take, and how many workers this machine has room for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import psutil

from tagclip.images import Size
from wsss.config import MaskConfig
from wsss.masks.upsampling import fitted_size

PROCESS = 180 * 2**20  # of a worker with NumPy, OpenCV and pydensecrf, before its first mask
PROCESS_WITH_TORCH = 600 * 2**20  # of one that needs PyTorch: the CRF on tensors
CRF_PIXEL = 440  # bytes per refined pixel of pydensecrf with four labels, the most that was seen
TENSOR_CRF_PIXEL = 560  # and of the CRF on tensors
PHOTO_PIXEL = 24  # bytes per pixel of the photo: decoded twice, labels, mask, probability, one band of the filter
HEADROOM = 0.8  # share of the free memory that workers may take together


def mask_memory(size: Size, config: MaskConfig) -> int:
    """Peak memory in bytes of the worker that makes the mask of a photo of `size`; an estimate from above."""
    height, width = fitted_size(size.height, size.width, config.max_refine_side)
    process, refined = PROCESS, 60
    if config.refiner == "crf" and config.crf.engine == "torch":
        process, refined = PROCESS_WITH_TORCH, TENSOR_CRF_PIXEL
    elif config.refiner == "crf":
        refined = CRF_PIXEL
    return process + refined * height * width + PHOTO_PIXEL * size.height * size.width


def available_memory() -> int:
    """Bytes that processes of this machine, or of this container, can still take."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (Path("/sys/fs/cgroup", name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used)) if limit != "max" else free
    except (OSError, ValueError):  # no control group, or one of another version
        return free


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_that_fit(sizes: Iterable[Size], config: MaskConfig, *, free: int | None = None) -> int:
    """How many mask workers have room for the largest of the photos at once: one per core at most, one at least.

    Args:
        sizes: of the photos that are left.
        free: bytes; None asks the machine.
    """
    largest = max((mask_memory(size, config) for size in sizes), default=PROCESS)
    room = int(HEADROOM * (available_memory() if free is None else free) / largest)
    return max(1, min(cores(), room))

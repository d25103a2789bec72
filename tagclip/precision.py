"""float32 arithmetic that is float32: PyTorch lets accelerators (and some CPUs) round operands to TF32 or bfloat16.

cuDNN's convolutions do so unless they are told not to, and the patch embedding is one; products do so where a user or
another library asked for it. The switches are global, so they are turned off around our arithmetic only, and back on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

EXACT = ("ieee", "none")

_lock = threading.Lock()
_users = 0
_restore: Callable[[], None] | None = None


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, float32 products and convolutions keep all 24 bits on every device; afterwards settings are as before.

    Also a decorator. It may be nested and entered by several threads: the settings return when the last one leaves.
    Half-precision arithmetic is not concerned.
    """
    global _users, _restore
    with _lock:
        if _users == 0:
            _restore = _make_exact()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _restore is not None:
                _restore()
                _restore = None


def _make_exact() -> Callable[[], None]:
    """Turns reduced precision off; returns what turns it on again."""
    legacy = _legacy_settings()
    return _by_backend() if legacy is None else _by_legacy(*legacy)


def _legacy_settings() -> tuple[bool, str] | None:
    """cuDNN's TF32 switch and the precision of products; None where newer settings are in force.

    PyTorch from 2.9 on has `fp32_precision` per backend and operation, and refuses to answer by the old names once one
    of these was set to something that the old names cannot say.
    """
    try:
        _ = torch.backends.cuda.matmul.allow_tf32  # raises where it contradicts the newer setting
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _by_legacy(convolutions: bool, products: str) -> Callable[[], None]:
    # The precision of products is that of the CPU's oneDNN as well; `cuda.matmul.allow_tf32` is not.
    onednn: Any = getattr(torch.backends.mkldnn, "matmul", None)
    before = getattr(onednn, "fp32_precision", None)

    def restore() -> None:
        if convolutions:
            torch.backends.cudnn.allow_tf32 = True
        if products != "highest":
            torch.set_float32_matmul_precision(products)
            if before is not None and onednn.fp32_precision != before:
                onednn.fp32_precision = before

    if convolutions:
        torch.backends.cudnn.allow_tf32 = False
    if products != "highest":
        torch.set_float32_matmul_precision("highest")
    return restore


def _by_backend() -> Callable[[], None]:
    backends: Any = torch.backends
    changed = [
        (settings, settings.fp32_precision)
        for settings in (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
        if settings.fp32_precision not in EXACT
    ]

    def restore() -> None:
        for settings, before in changed:
            settings.fp32_precision = "none"  # which follows the backend's setting, as it may have done before
            if settings.fp32_precision != before:
                settings.fp32_precision = before

    for settings, _ in changed:
        settings.fp32_precision = "ieee"
    return restore

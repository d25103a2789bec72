"""Processes that do not import the script that started them."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Processes that multiprocessing spawns meanwhile begin with an empty `__main__`.

    They would import the caller's script otherwise: slow, and endless for one that works at module level, without
    `if __name__ == "__main__"`. Ours need nothing of it: all that they run and get is defined in modules.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main

"""Resident memory of this process, measured without importing anything large."""

from __future__ import annotations

import contextlib
import platform
import resource
from pathlib import Path


class PeakMemory:
    """Resident memory of this process from the making of this object on, MiB."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):  # Linux: forget the peak reached so far
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self.start = resident("VmRSS")

    @property
    def peak(self) -> float:
        """Largest resident memory since the start; elsewhere than on Linux since the process began."""
        return resident("VmHWM")


def resident(field: str) -> float:
    """A field of this process's status on Linux, "VmRSS" or "VmHWM", MiB; elsewhere the largest resident memory."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also see what the parent process held before exec
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20

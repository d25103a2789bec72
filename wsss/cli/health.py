"""What this machine has and lacks for our commands; each check works where the others fail."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wsss.pipeline.memory import available_memory, cores

PACKAGES = (
    "torch", "numpy", "opencv-python-headless", "opencv-python", "open_clip_torch", "safetensors", "onedl-mmengine",
    "onedl-mmcv", "onedl-mmsegmentation", "onnx", "onnxruntime", "rich", "pillow", "scikit-learn",
)  # fmt: skip
OLDEST_PYTHON = (3, 10)
LEAST_MEMORY = 4 * 2**30  # a run with ViT-B/16 and two mask workers stays below it on photos of ordinary size
BUSY = 0.5  # load average per core at which other work is felt
SLOWER = 1.3  # how much slower spinning threads must be before it is worth a word
# A few layers' worth of small parallel operations, as a vision transformer has them.
SPIN_TEST = """
import time, torch
a, b = torch.randn(400, 768), torch.randn(768, 768)
for _ in range(20): torch.nn.functional.gelu(a @ b)
start = time.perf_counter()
for _ in range(300): torch.nn.functional.gelu(a @ b)
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Check:
    """One finding: what, its value, and advice where something is not as it should be (else "")."""

    name: str
    value: str
    advice: str = ""


def all_checks() -> Iterator[Check]:
    """Every check, one after the other: some take seconds."""
    for check in (
        check_python, check_packages, check_torch, check_cores, check_memory, check_disk, check_openmp, check_weights,
        check_mmseg, check_crf,
    ):  # fmt: skip
        yield check()


def check_python() -> Check:
    """The interpreter."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("Python", found, "install Python 3.10 or later")
    return Check("Python", found)


def check_packages() -> Check:
    """Versions of what is installed."""
    return Check("packages", ", ".join(f"{name} {found}" for name in PACKAGES if (found := installed(name))))


def check_torch() -> Check:
    """PyTorch and its devices."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken installation may raise anything
        return Check("PyTorch", _problem(error), "pip install torch; the README says how for a machine without a GPU")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        names = ", ".join(f"cuda:{i} {one.name}, {one.total_memory / 2**30:.0f} GiB" for i, one in enumerate(devices))
        return Check("PyTorch", f"{torch.__version__}, {names}")
    found = f"{torch.__version__}, {torch.get_num_threads()} threads, no CUDA device"
    if Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists():
        return Check("PyTorch", found, "there is an NVIDIA driver; install a PyTorch build with CUDA to use its GPU")
    return Check("PyTorch", found)


def check_cores() -> Check:
    """Processor cores, and how busy they are."""
    usable, quota = cores(), cpu_quota()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    found = f"{usable} usable, load {load:.1f}"
    if quota is not None and quota + 0.5 < usable:
        share = max(1, round(quota))
        return Check("cores", f"{found}, limited to {quota:g}", f"give --threads {share} and --mask-workers {share}")
    if load > usable * (1 + BUSY):
        return Check("cores", found, "other programs are busy: runs take longer, and --dry-run estimates too much")
    return Check("cores", found)


def check_memory() -> Check:
    """Memory that is free for a run."""
    free = available_memory()
    found = f"{free / 2**30:.1f} GiB free"
    if free < LEAST_MEMORY:
        return Check("memory", found, "give --mask-workers 1 and --batch-size 1, or close other programs")
    return Check("memory", found)


def check_disk() -> Check:
    """Room in the working directory."""
    import shutil

    free = shutil.disk_usage(".").free
    found = f"{free / 2**30:.1f} GiB free in the working directory"
    return Check("disk", found, "choose another disk with --out" if free < 2**30 else "")


def check_openmp() -> Check:
    """Whether idle threads of the model spin beside other work, and what that costs here."""
    policy = os.environ.get("OMP_WAIT_POLICY")
    if policy is not None:
        advice = "" if policy.upper() == "PASSIVE" else "export OMP_WAIT_POLICY=PASSIVE beside other work"
        return Check("OpenMP", f"OMP_WAIT_POLICY={policy}", advice)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < BUSY * cores():
        return Check("OpenMP", "OMP_WAIT_POLICY is not set, and nothing else is running that it could disturb")
    ratio = spinning_cost()
    if ratio is None:
        return Check("OpenMP", "OMP_WAIT_POLICY is not set")
    found = f"OMP_WAIT_POLICY is not set; beside what runs now, that takes {ratio:.1f} times as long as PASSIVE"
    return Check("OpenMP", found, "export OMP_WAIT_POLICY=PASSIVE" if ratio > SLOWER else "")


def check_weights() -> Check:
    """CLIP weights that need no download."""
    found = cached_weights()
    if not found:
        return Check(
            "weights", "none in the caches of open_clip and the hub",
            "the first run downloads 0.35 GB; without a network give --pretrained FILE",
        )  # fmt: skip
    return Check("weights", ", ".join(f"{name} ({size / 2**20:.0f} MiB)" for name, size in found))


def check_mmseg() -> Check:
    """Whether DeepLab can be trained and used."""
    from wsss.cli.console import load_mmseg

    try:
        load_mmseg()
    except Exception as error:  # a broken installation may raise anything
        return Check("mmseg", _problem(error), _advice(error, "pip install --force-reinstall 'tagclip-wsss[seg]'"))
    return Check("mmseg", installed("onedl-mmsegmentation") or installed("mmsegmentation") or "imports")


def check_crf() -> Check:
    """What refines masks along edges; without pydensecrf, torch does."""
    try:
        importlib.import_module("pydensecrf.densecrf")
    except Exception as error:  # a broken installation may raise anything
        found = f"torch, in place of pydensecrf, which {_problem(error)}"
        remedy = _advice(error, "pip uninstall pydensecrf2, and build it as the README's Installation says")
        return Check("CRF", found, f"only --preset reference needs pydensecrf: {remedy}")
    return Check("CRF", f"pydensecrf2 {installed('pydensecrf2') or ''}".rstrip())


def installed(name: str) -> str | None:
    """Version of a distribution, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_quota(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Cores that a container may use at a time, None without a limit."""
    try:
        quota, period = file.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def cached_weights() -> list[tuple[str, int]]:
    """(name, bytes) of the CLIP weights in the caches of the hub and of open_clip."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    found = []
    for folder in sorted(hub.glob("models--*")):
        size = sum(file.stat().st_size for file in folder.glob("blobs/*") if file.is_file())
        name = folder.name.removeprefix("models--").replace("--", "/")
        if "clip" in name.lower() and size > 2**20:
            found.append((name, size))
    files = sorted((Path.home() / ".cache" / "clip").glob("*.*"))
    return [*found, *((file.name, file.stat().st_size) for file in files if file.suffix in {".pt", ".safetensors"})]


def spinning_cost(run: Callable[..., subprocess.CompletedProcess] = subprocess.run) -> float | None:
    """How many times as long parallel work takes with spinning threads as with sleeping ones; None if not measured."""
    seconds = []
    for policy in ({}, {"OMP_WAIT_POLICY": "PASSIVE"}):
        done = run([sys.executable, "-c", SPIN_TEST], env={**os.environ, **policy}, capture_output=True, text=True,
                   check=False)  # fmt: skip
        if done.returncode:
            return None
        seconds.append(float(done.stdout))
    return seconds[0] / seconds[1]


def _problem(error: Exception) -> str:
    return f"cannot be imported: {type(error).__name__}: {error}"


def _advice(error: Exception, otherwise: str) -> str:
    from tagclip.requirements import import_advice

    known = import_advice(error) if isinstance(error, ImportError) else None
    return known or otherwise

"""Photos of 12 and 50 megapixels through `tagclip run` with two mask workers: seconds, and peak memory per process.

    python -m tests.large_photos --work DIR
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import psutil
from PIL import Image

from tagclip.demo.scenes import SceneConfig, SceneRenderer

SIZES = ((12, 4000, 3000), (50, 8660, 5774))  # megapixels, width, height
EVERY = 0.3  # seconds between looks at the processes; the system itself keeps the peak of each


def draw(folder: Path, count: int) -> None:
    """`count` photos of each size, enlarged scenes."""
    folder.mkdir(parents=True)
    renderer = SceneRenderer(SceneConfig(), seed=3)
    for megapixels, width, height in SIZES:
        for number in range(count):
            image = Image.fromarray(renderer(number).image).resize((width, height), Image.Resampling.BICUBIC)
            image.save(folder / f"{megapixels}mp_{number}.jpg", quality=90)


def peak(process: psutil.Process) -> int:
    """Largest resident memory so far, in bytes; what is resident now where the system does not tell."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return process.memory_info().rss


def peaks(process: subprocess.Popen) -> tuple[float, list[float]]:
    """Largest resident memory, MiB: of the process, and of each of its children that made masks."""
    own, children = 0, {}
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            own = max(own, peak(parent))
            for child in parent.children(recursive=True):
                children[child.pid] = max(children.get(child.pid, 0), peak(child))
        except psutil.NoSuchProcess:
            pass
        time.sleep(EVERY)
    workers = sorted((rss / 2**20 for rss in children.values()), reverse=True)
    return own / 2**20, [rss for rss in workers if rss > 60]  # the others only watch


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for photos and runs; must not exist")
    parser.add_argument("--count", type=int, default=2, help="photos of each size")
    args = parser.parse_args()
    draw(args.work / "photos", args.count)
    print("| photos | seconds | model's process, MiB | mask workers, MiB |\n|---|---:|---:|---|")
    for megapixels, _, _ in SIZES:
        photos = args.work / "photos" / f"{megapixels}mp_*.jpg"
        command = [
            sys.executable, "-m", "wsss.cli.main", "run", "--images", str(photos), "--classes", "voc",
            "--model", "demo", "--mask-workers", "2", "--out", str(args.work / str(megapixels)), "--quiet",
        ]  # fmt: skip
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        own, workers = peaks(process)
        if process.returncode:
            return process.returncode
        shown = ", ".join(f"{rss:.0f}" for rss in workers)
        seconds = time.monotonic() - start
        print(f"| {args.count} of {megapixels} megapixels | {seconds:.0f} | {own:.0f} | {shown} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

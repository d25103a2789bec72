"""Kills parts of a Ray cluster in the middle of a run, and compares what it leaves with the run of one process.

    python -m tests.kill_cluster --work DIR
    python -m tests.kill_cluster --work DIR --only actor node --rounds 3 --scenes 24

Two nodes of a cluster run on this machine, bound to a loopback address. In each round a mask worker, an actor, a node
or the driver is ended by SIGKILL; the driver's run is then started again. The result is a table.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tests.kill_and_resume import VOLATILE
from tests.wsss.runs import contents
from wsss.engines.ray_engine import LOOPBACK, RayOptions, run_on_ray
from wsss.files.run_folder import PARTIAL, PARTS
from wsss.pipeline.mask_run import MaskRun
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import MaskRunConfig, load_run_config

NODE = {"num_cpus": 4, "node_ip_address": LOOPBACK, "object_store_memory": 100 * 2**20}
MASK_WORKER, ACTOR = "ray::mask_task", "ray::ModelActor.execute"  # how Ray calls its processes
KINDS = ("mask worker", "actor", "driver", "node")
SCENE = SceneConfig(side=(160, 161), object_side=(50, 90), objects=(1, 2))


def draw_scenes(folder: Path, count: int) -> Path:
    """Small scenes, and a file that is no photo."""
    folder.mkdir(parents=True)
    renderer = SceneRenderer(SCENE, 3)
    for number in range(count):
        Image.fromarray(renderer(number).image).save(folder / f"{number:03}.png")
    (folder / "broken.png").write_bytes(b"no photo")
    return folder


def make_run(photos: Path, out: Path, part_images: int = 2) -> MaskRun:
    """A run of the demo model, in small parts."""
    fields = {"images.source": str(photos), "vocabulary": "voc", "model.name": "demo", "out": str(out),
              "tagging.batch_size": 2, "work.mask_workers": 2}  # fmt: skip
    recipe = Recipe.resolve(load_run_config("demo/masks", fields, MaskRunConfig()))
    return MaskRun(recipe, device="cpu", part_images=part_images)


def for_loopback() -> None:
    """No proxy and no statistics for clusters of this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    os.environ["no_proxy"] = f"127.0.0.1,{LOOPBACK},localhost"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def patiently(start: Callable[[], Any], tries: int = 5) -> Any:
    """A node must be there within 30 s, which is not so on a machine with much other work."""
    for left in reversed(range(tries)):
        try:
            return start()
        except Exception:
            if not left:
                raise
    raise AssertionError


@contextlib.contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes on this machine, with this process as its driver."""
    for_loopback()
    import ray
    from ray.cluster_utils import Cluster

    head = {**NODE, "include_dashboard": False}
    cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
    try:
        patiently(lambda: cluster.add_node(**NODE))
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def processes(name: str) -> list[psutil.Process]:
    """This user's processes that Ray calls by that name, below this process or the nodes that it has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith(name):
                found.append(process)
    return found


class Killing(threading.Thread):
    """Waits until some masks are there, and then kills once.

    Attributes:
        killed: what was killed, None if the run was over before.
    """

    def __init__(self, masks: Path, kill: Callable[[], str | None], after: int = 2):
        super().__init__(daemon=True)
        self.masks, self.kill, self.after = masks, kill, after
        self.killed: str | None = None
        self.is_over = False

    def run(self) -> None:
        """Polls."""
        while not self.is_over and self.killed is None:
            if sum(1 for _ in self.masks.rglob("*.png")) >= self.after:
                self.killed = self.kill()
            time.sleep(0.005)

    def __enter__(self) -> Killing:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self.join()


def kill_process(name: str) -> str | None:
    """SIGKILL for the first of Ray's processes of that name."""
    for process in processes(name):
        with contextlib.suppress(psutil.Error):
            process.kill()
            return f"{name} {process.pid}"
    return None


def kill_node(cluster: Any) -> str | None:
    """SIGKILL for the raylet of a node that is not the head, and for its processes."""
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)
        return "node"
    return None


def made(out: Path) -> dict[str, str]:
    """Digests of the files of a run that must be the same however it was made."""
    return {name: digest for name, digest in contents(out, VOLATILE).items() if name != "config.py"}


def drive(photos: Path, out: Path) -> subprocess.Popen:
    """Another driver, with a cluster of its own, in a process group of its own."""
    line = [sys.executable, "-m", "tests.kill_cluster", "--work", str(photos), "--drive", str(out)]
    return subprocess.Popen(line, start_new_session=True, stdout=subprocess.DEVNULL)


def kill_driver(photos: Path, out: Path) -> int:
    """Kills a driver in mid-run and starts it again; returns how many processes of its cluster outlived it by 20 s."""
    driver = drive(photos, out)
    family: list[psutil.Process] = []

    def kill() -> str:
        family.extend(psutil.Process(driver.pid).children(recursive=True))
        os.kill(driver.pid, signal.SIGKILL)
        return "driver"

    with Killing(out / "masks", kill) as killing:
        driver.wait()
    if killing.killed is None:
        raise RuntimeError("the driver was done before it could be killed")
    _, alive = psutil.wait_procs(family, timeout=20)
    if drive(photos, out).wait():
        raise RuntimeError("the second driver failed")
    return len(alive)


def one_round(kind: str, photos: Path, out: Path, cluster: Any) -> str:
    """One kill; returns what is to be said of it."""
    if kind == "driver":
        return f"{kill_driver(photos, out)} processes outlived it"
    kills = {
        "mask worker": lambda: kill_process(MASK_WORKER),
        "actor": lambda: kill_process(ACTOR),
        "node": lambda: kill_node(cluster),
    }
    with Killing(out / "masks", kills[kind]) as killing:
        run_on_ray(make_run(photos, out), RayOptions(actors=2, threads=1))
    if kind == "node":
        patiently(lambda: cluster.add_node(**NODE))
    return "" if killing.killed is not None else "over before the kill"


def compare(out: Path, whole: dict[str, str]) -> str:
    """What is lost, changed or added beside the run of one process."""
    found = made(out)
    lost, added = whole.keys() - found.keys(), found.keys() - whole.keys()
    changed = [name for name in whole.keys() & found.keys() if whole[name] != found[name]]
    return f"{len(lost)} | {len(added)} | {len(changed)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="kill these")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is killed")
    parser.add_argument("--scenes", type=int, default=16, help="how many scenes are drawn")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.drive is not None:
        for_loopback()
        run_on_ray(make_run(args.work, args.drive), RayOptions(actors=2, threads=1))
        return 0
    import torch

    torch.set_num_threads(1)
    shutil.rmtree(args.work, ignore_errors=True)
    photos = draw_scenes(args.work / "photos", args.scenes)
    make_run(photos, args.work / "whole").execute()
    whole = made(args.work / "whole")
    print(f"{args.scenes} scenes, {len(whole)} files\n")
    print("| killed | round | seconds | files lost | files too many | files changed | |")
    print("|---|---:|---:|---:|---:|---:|---|")
    with two_nodes() as cluster:
        for kind in args.only:
            for number in range(args.rounds):
                out, start = args.work / f"{kind}-{number}".replace(" ", "-"), time.perf_counter()
                said = one_round(kind, photos, out, cluster)
                seconds = time.perf_counter() - start
                print(f"| {kind} | {number + 1} | {seconds:.0f} | {compare(out, whole)} | {said} |", flush=True)
                if (out / PARTIAL / PARTS).exists():
                    raise RuntimeError(f"{out}: parts are left")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Seconds and memory of starting a run again whose images are done: `plan.npz` beside reading every header.

    python -m wsss.benchmark.start_up --images 100000 1000000 --work DIR
    python -m wsss.benchmark.start_up --listed 1000000 --work DIR

The photos are hard links to small stub files, 1,000 in a folder; each is a directory entry of its own that is looked
at. Three states of a run folder are started in processes of their own, whose seconds count from the start of Python:

    parts      of a run that machines share, all parts but the last one are done (--shard, --engine ray);
               the start ends where the first image of that part would be decoded, PyTorch and open_clip imported
    done       all parts are done; the start ends where a shard finds that there is nothing left for it
    complete   the run is complete, and `tagclip run` finds nothing to do; every mask and every file of class maps is
               looked at. Masks and maps are links to stub files as well

No image goes through a model. The photos are all of one size, so `plan.npz` is written without reading their headers;
for the first number of images, one start that reads them all is measured, too. --listed takes a list of names without
files, and says what each step of a start costs but the walk through the folders and the look at each file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from tagclip.clip.trunk import Grid
from tagclip.image_lists import ImageFiles
from wsss.benchmark.resident_memory import resident
from wsss.files.kept_plan import PLAN_FILE, PhotoHeaders, write_headers
from wsss.files.map_files import StoredMaps
from wsss.files.run_folder import DONE, PARTIAL, PARTS, RunFolder
from wsss.pipeline.mask_run import MaskRun
from wsss.pipeline.part_worker import AFTER_MAPS, CHANGEABLE
from wsss.pipeline.plan_table import BatchTable, Lazy, fill_from, listed_names, look_at, names_digest
from wsss.pipeline.planning import Plan, PlanTable, confirm_photos, photos_record
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import MaskRunConfig, load_run_config
from wsss.pipeline.work_parts import cut_parts

PER_FOLDER = 1000
LINKS = 30_000  # to one file; file systems allow 65,000 or fewer
STUB = (48, 64)  # height and width of the photos
STATES = ("parts", "done", "complete")
BATCH_SIZE = 4
BATCH = 10_000  # records that are written in one go


def stub_run(photos: Path, out: Path) -> MaskRun:
    """A run of the demo model on the CPU."""
    fields = {"images.source": str(photos), "vocabulary": "voc", "model.name": "demo", "out": str(out)}
    return MaskRun(Recipe.resolve(load_run_config("demo/masks", fields, MaskRunConfig())), device="cpu")


def link_files(top: Path, suffix: str, count: int, stub: bytes) -> None:
    """`count` files with one content, named by number."""
    source = top
    for number in range(count):
        folder = top / f"{number // PER_FOLDER:05}"
        if number % PER_FOLDER == 0:
            folder.mkdir(parents=True)
        path = folder / f"{number:07}{suffix}"
        if number % LINKS == 0:
            source = path
            path.write_bytes(stub)
        else:
            os.link(source, path)


def stub_photo(folder: Path) -> bytes:
    """A PNG of 64 x 48 pixels."""
    path = folder / "stub.png"
    Image.fromarray(np.zeros((*STUB, 3), np.uint8)).save(path)
    return path.read_bytes()


def stub_maps(folder: Path) -> bytes:
    """Class maps of one class."""
    path = folder / "stub.npz"
    with path.open("wb") as file:
        StoredMaps(np.zeros((1, 3, 4), np.float16), np.zeros(1, np.int32), (48, 64)).write(file)
    return path.read_bytes()


def keep_headers(run: MaskRun) -> None:
    """Writes `plan.npz` of photos that are all stubs."""
    out = Path(run.recipe.run.out)
    seen = look_at(run.files, names_digest(run.files), run.recipe.masks.image.apply_exif, 1)
    height, width = (np.full(len(seen), side, np.int32) for side in STUB)
    names = "".join(listed_names(run.files)).encode()
    write_headers(out / PLAN_FILE, out, replace(seen, height=height, width=width), names)


def fill_parts(run: MaskRun, left: int) -> None:
    """Marks all parts but the last few as done."""
    out = Path(run.recipe.run.out)
    run.begin_parts(range(len(run.parts)))
    for number in range(len(run.parts) - left):
        folder = out / PARTIAL / PARTS / f"{number:06}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DONE).touch()


def fill_complete(run: MaskRun, work: Path) -> None:
    """Writes records, masks and class maps of all images, and the manifest of a complete run."""
    out, count, names = Path(run.recipe.run.out), len(run.files), run.recipe.vocabulary.names
    size = run.files[0].path.stat().st_size
    link_files(out / "masks", ".png", count, stub_photo(work))
    link_files(out / "cams", ".npz", count, stub_maps(work))
    with RunFolder.open(
        out, run.identity(), run.recipe.resolved(), changeable=CHANGEABLE, after_maps=AFTER_MAPS
    ) as folder:
        scores = [0.01] * len(names)
        for start in range(0, count, BATCH):
            folder.tags.append(
                {"id": file.id, "path": file.recorded, "height": 48, "width": 64, "tags": [names[0]], "scores": scores,
                 "file_size": size} for file in run.files[start : start + BATCH]
            )  # fmt: skip
        counts = {"images": count, "masks": count, "failures": 0, "untagged": 0, "tags": {}, "pixels": {},
                  "ignored_share": 0.0}  # fmt: skip
        confirm_photos(run.plan, folder)
        folder.complete(run.plan.order, counts)


def start_again(state: str, photos: Path, out: Path) -> dict[str, Any]:
    """One start in this process, which was made for it."""
    run = stub_run(photos, out)
    listed = _seconds()
    if state == "parts":
        missing = run.begin_parts(range(len(run.parts)))
        if missing != [len(run.parts) - 1] or not run.parts[missing[0]].batches[0]:
            raise RuntimeError(f"parts {missing} are left")
        import wsss.pipeline.masks  # noqa: F401  # what a part needs, before its first image is decoded
    elif state == "done":
        if missing := run.begin_parts(range(len(run.parts))):
            raise RuntimeError(f"parts {missing} are left")
    elif run.execute().times is not None:
        raise RuntimeError("the run was not complete")
    return {"seconds": _seconds(), "listed": listed, "core": time.process_time(), "memory": _peak()}


def start_listed(count: int, work: Path) -> None:
    """Prints processor seconds of each step of a start, and the peak memory after it, for a list without files."""
    names = [f"{number // PER_FOLDER:05}/{number:07}.png" for number in range(count)]
    print(f"| imports, and {count:,} names | {time.process_time():.1f} | {_peak():,.0f} |")
    files = _timed("a list of images from names", lambda: ImageFiles(work, names))
    digest = _timed("digest of the list", lambda: names_digest(files))
    height, width = (np.full(count, side, np.int32) for side in STUB)
    ones = np.ones(count, np.int64)
    headers = PhotoHeaders(digest, True, ones, ones, height, width)
    write_headers(work / PLAN_FILE, work, headers, "".join(listed_names(files)).encode())
    seen = replace(headers, height=np.zeros_like(height), width=np.zeros_like(width))
    _timed("kept headers", lambda: fill_from(work / PLAN_FILE, seen, files))
    groups = np.zeros(count, np.int32)
    packed = _timed("batches", lambda: BatchTable.of(groups, [BATCH_SIZE]))
    table = PlanTable(files, headers, packed, {STUB: Grid(3, 4)}, False)
    plan = Plan(Lazy(count, table.id), Lazy(len(packed), table.batch), table=table)
    _timed("parts", lambda: cut_parts(plan))
    _timed("digest of the photos", lambda: photos_record(plan))


def _timed(name: str, step: Callable[[], Any]) -> Any:
    start = time.process_time()
    found = step()
    print(f"| {name} | {time.process_time() - start:.1f} | {_peak():,.0f} |", flush=True)
    return found


def _peak() -> float:
    return resident("VmHWM")


def _seconds() -> float:
    return time.time() - psutil.Process().create_time()


def measured(state: str, photos: Path, out: Path) -> dict[str, Any]:
    """`start_again` in a process of its own."""
    line = [sys.executable, "-m", "wsss.benchmark.start_up", "--child", state, "--work", str(photos), "--out", str(out)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100_000], help="how many")
    parser.add_argument("--listed", type=int, help="measure the steps of a start with a list of this many names")
    parser.add_argument("--states", nargs="+", choices=STATES, default=["parts"], help="of the run folder")
    parser.add_argument("--repeats", type=int, default=3, help="starts of each; the median is shown")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything, which must not exist")
    parser.add_argument("--child", choices=STATES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print(json.dumps(start_again(args.child, args.work, args.out)))
        return 0
    if args.listed is not None:
        args.work.mkdir(parents=True)
        print("| step | core-seconds | peak memory, MiB |\n|---|---:|---:|")
        start_listed(args.listed, args.work)
        return 0
    from wsss.benchmark.measure import machine  # imports torch, which starts do without

    print(json.dumps(machine("cpu", 1)))
    print("| images | run folder | headers | seconds | core-seconds | peak memory, MiB |")
    print("|---:|---|---|---:|---:|---:|")
    for count in args.images:
        work = args.work / str(count)
        work.mkdir(parents=True)
        link_files(work / "photos", ".png", count, stub_photo(work))
        for state in args.states:
            out = work / state
            run = stub_run(work / "photos", out)
            with RunFolder.open(out, run.identity(), run.recipe.resolved()):
                keep_headers(run)
            fill_complete(run, work) if state == "complete" else fill_parts(run, int(state == "parts"))
            rows = [("kept", [measured(state, work / "photos", out) for _ in range(args.repeats)])]
            if count == args.images[0]:
                (out / PLAN_FILE).unlink()
                rows.append(("read again", [measured(state, work / "photos", out)]))
            for name, found in rows:
                seconds, core, memory = (float(np.median([one[key] for one in found]))
                                         for key in ("seconds", "core", "memory"))  # fmt: skip
                print(f"| {count:,} | {state} | {name} | {seconds:.1f} | {core:.1f} | {memory:,.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

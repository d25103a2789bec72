"""How well parts keep many machines busy: a discrete-event simulation that replays measured seconds per photo.

    python -m wsss.benchmark.cluster_simulation --times stage_times.json --out DIR

Workers take tasks of whole parts of 256 photos. "shards": as many tasks as workers, as `tagclip run --shard K/N` on N
machines; "array": ten times as many shards, taken one after the other, as a Slurm array takes them; "queue": a part
at a time with the model kept, as the Ray engine does it. Some workers are slower than others, some fail: a failed
one loses the batch in work and is away until it is started again; what is left of its task is taken up by whoever is
free first. Efficiency is the time that the photos alone would take, spread evenly, divided by the time until the last
part is done. Writes DIR/efficiency.csv and DIR/efficiency.png, and prints them with the costs of 10^9 photos.
"""

from __future__ import annotations

import argparse
import csv
import heapq
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import simpy

from tagclip.errors import TagclipError, UsageError
from wsss.benchmark.stage_times import PhotoTimes
from wsss.pipeline.work_parts import IMAGES_PER_PART, Shard

HOUR = 3600.0
TERABYTE = 1e12
Schedule = Literal["shards", "array", "queue"]
SCHEDULES: dict[Schedule, str] = {"queue": "-", "array": ":", "shards": "--"}  # and the line of each in the picture
ARRAY_TASKS = 10  # a worker


@dataclass(frozen=True)
class ClusterCase:
    """One simulated run.

    Attributes:
        workers: machines, or processes with a model each.
        parts: of 256 photos.
        schedule: "shards", "array" or "queue", see the module.
        spread: workers take 1 + |x| times as long, x normal with this standard deviation.
        slow: share of workers that take `slowness` times as long, rounded to whole workers.
        slowness: see `slow`.
        hours_to_failure: mean hours that a worker works until it fails; None: it never does.
        away: seconds until a failed worker is started again.
        start: seconds until a started worker has its model.
        batch: photos in work when a worker fails, which are done once more.
        seed: of all that is drawn.
    """

    workers: int
    parts: int
    schedule: Schedule = "queue"
    spread: float = 0.0
    slow: float = 0.0
    slowness: float = 3.0
    hours_to_failure: float | None = None
    away: float = 120.0
    start: float = 30.0
    batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.workers < 1 or self.parts < 1:
            raise UsageError(f"{self.workers} workers, {self.parts} parts: at least one of each is needed")


@dataclass(frozen=True)
class ClusterOutcome:
    """What a simulated run came to.

    Attributes:
        hours: until the last part is done.
        efficiency: hours of an even, undisturbed run divided by `hours`, at most 1.
        failures: of workers.
        done: how often each part was finished, (parts,) int: ones, if nothing is lost or doubled.
    """

    hours: float
    efficiency: float
    failures: int
    done: np.ndarray


def seconds_of_parts(photo_seconds: np.ndarray, parts: int, seed: int = 0) -> np.ndarray:
    """Seconds of `parts` parts whose photos are drawn from the measured ones with replacement, (parts,) float64."""
    generator = np.random.default_rng(seed)
    found = np.empty(parts)
    for begin in range(0, parts, 4096):
        rows = min(4096, parts - begin)
        drawn = generator.integers(0, len(photo_seconds), (rows, IMAGES_PER_PART))
        found[begin : begin + rows] = photo_seconds[drawn].sum(axis=1)
    return found


def simulate(case: ClusterCase, part_seconds: np.ndarray) -> ClusterOutcome:
    """Plays a run until its last part is done.

    Args:
        case: the cluster.
        part_seconds: of each part on a worker of normal speed, (parts,).
    """
    generator = np.random.default_rng(case.seed)
    environment = simpy.Environment()
    slowness = 1 + np.abs(generator.normal(0.0, case.spread, case.workers))
    slowness[: round(case.slow * case.workers)] *= case.slowness
    left = part_seconds.astype(np.float64)
    batch = case.batch * float(part_seconds.mean()) / IMAGES_PER_PART  # seconds of one
    waiting = _tasks(case)  # a heap: what was cut short has the lower numbers and goes first
    done, failures = np.zeros(case.parts, dtype=int), [0]

    def to_failure() -> float:
        hours = case.hours_to_failure
        return float("inf") if hours is None else float(generator.exponential(hours * HOUR))

    def work(number: int) -> Generator[simpy.Event, None, None]:
        failure, idle = to_failure(), True
        while waiting:
            order, task = heapq.heappop(waiting)
            if idle or case.schedule != "queue":
                yield environment.timeout(case.start)
            idle = False
            while task:
                needed = left[task[0]] * slowness[number]
                if needed > failure:  # it fails in this part: whole batches are done, the one in work is not
                    yield environment.timeout(failure)
                    left[task[0]] -= (failure / slowness[number]) // batch * batch
                    failures[0] += 1
                    heapq.heappush(waiting, (order, task))
                    failure, idle = to_failure(), True
                    yield environment.timeout(case.away)
                    break
                yield environment.timeout(needed)
                failure -= needed
                done[task.pop(0)] += 1

    ended = [environment.process(work(number)) for number in range(case.workers)]
    environment.run(until=simpy.AllOf(environment, ended))
    seconds = float(environment.now)
    even = float(part_seconds.sum()) / case.workers
    return ClusterOutcome(seconds / HOUR, even / seconds, failures[0], done)


def _tasks(case: ClusterCase) -> list[tuple[int, list[int]]]:
    """Numbered tasks, each a list of parts in order."""
    count = {"shards": case.workers, "array": ARRAY_TASKS * case.workers, "queue": case.parts}[case.schedule]
    count = min(count, case.parts)
    return [(number, list(Shard(number + 1, count).own(case.parts))) for number in range(count)]


def costs(times: PhotoTimes, photos: float) -> str:
    """What so many photos take, a Markdown table: hours of models and of cores, and storage."""
    hours = {
        stage: float(np.mean(getattr(times, stage))) * photos / HOUR for stage in ("decode", "model", "crf", "write")
    }
    sizes = {
        name: float(np.mean(getattr(times, name))) * photos / TERABYTE
        for name in ("photo_bytes", "mask_bytes", "record_bytes")
    }
    cores = hours["decode"] + hours["crf"] + hours["write"]
    rows = [
        ("model, hours of one model", f"{hours['model']:,.0f}"),
        ("decoding, CRF and writing, core-hours", f"{cores:,.0f}"),
        ("of them CRF", f"{hours['crf']:,.0f}"),
        ("cores beside one model, so that neither waits", f"{cores / hours['model']:.2f}"),
        ("photos, TB", f"{sizes['photo_bytes']:,.1f}"),
        ("masks, TB", f"{sizes['mask_bytes']:,.1f}"),
        ("tags, TB", f"{sizes['record_bytes']:,.2f}"),
        (f"parts of {IMAGES_PER_PART} photos", f"{photos / IMAGES_PER_PART:,.0f}"),
    ]
    return "\n".join([f"| {photos:.0e} photos | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)])


CONDITIONS: dict[str, dict[str, float | None]] = {
    "even, no failures": {},
    "uneven, no failures": {"spread": 0.05, "slow": 0.02},
    "uneven, a failure every 24 h": {"spread": 0.05, "slow": 0.02, "hours_to_failure": 24.0},
    "uneven, a failure every 2 h": {"spread": 0.05, "slow": 0.02, "hours_to_failure": 2.0},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Simulates, writes table and picture, prints both tables; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=Path, required=True, metavar="FILE", help="Of wsss.benchmark.stage_times")
    parser.add_argument("--photos", type=float, nargs="+", default=[1e6, 1e7], metavar="N", help="Photos of a run")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 10, 30, 100, 300, 1000], metavar="N", help="Workers"
    )
    parser.add_argument(
        "--rate", type=float, metavar="N", help="Photos per second of a model, in place of the measured"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="Where the results go")
    args = parser.parse_args(argv)
    try:
        times = PhotoTimes.read(args.times)
        args.out.mkdir(parents=True, exist_ok=True)
        seconds = np.asarray(times.model)
        if args.rate is not None:
            seconds = seconds / seconds.mean() / args.rate
        rows = list(_rows(seconds, times.start, [round(count) for count in args.photos], args.workers))
    except TagclipError as error:
        parser.exit(2, f"error: {error}\n")
    with (args.out / "efficiency.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _draw(rows, args.out / "efficiency.png")
    print(costs(times, 1e9), "\n")
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    return 0


def _rows(
    seconds: np.ndarray, start: float, photos: Sequence[int], workers: Sequence[int]
) -> Iterator[dict[str, str | int]]:
    for count in photos:
        parts = -(-count // IMAGES_PER_PART)
        of_parts = seconds_of_parts(seconds, parts)
        for name, condition in CONDITIONS.items():
            for schedule in SCHEDULES:
                for number in workers:
                    case = ClusterCase(number, parts, schedule, start=start, **condition)  # type: ignore[arg-type]
                    outcome = simulate(case, of_parts)
                    if not (outcome.done == 1).all():
                        raise UsageError(f"{case}: a part was lost or done twice")
                    yield {
                        "photos": count, "condition": name, "schedule": schedule, "workers": number,
                        "parts per worker": f"{parts / number:.1f}", "hours": f"{outcome.hours:.2f}",
                        "failures": outcome.failures, "efficiency": f"{outcome.efficiency:.3f}",
                    }  # fmt: skip


def _draw(rows: Sequence[dict[str, str | int]], path: Path) -> None:
    from matplotlib.figure import Figure

    photos = sorted({int(row["photos"]) for row in rows})
    figure = Figure(figsize=(5.2 * len(photos), 4.2), layout="constrained")
    panels = figure.subplots(1, len(photos), squeeze=False, sharey=True)[0]
    for panel, count in zip(panels, photos, strict=True):
        for colour, name in enumerate(CONDITIONS):
            for schedule, line in SCHEDULES.items():
                chosen = [
                    row for row in rows if (row["photos"], row["condition"], row["schedule"]) == (count, name, schedule)
                ]
                at = [int(row["workers"]) for row in chosen]
                values = [100 * float(row["efficiency"]) for row in chosen]
                label = name if schedule == "queue" else None
                panel.plot(at, values, line, color=f"C{colour}", marker="o", markersize=3, label=label)
        panel.set(
            xscale="log",
            xlabel="workers",
            title=f"{count:,} photos, {-(-count // IMAGES_PER_PART):,} parts",
            ylim=(0, 103),
        )
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("efficiency, %")
    panels[0].legend(
        title="solid: queue, dotted: array, dashed: shards", fontsize=8, title_fontsize=8, loc="lower left"
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    raise SystemExit(main())

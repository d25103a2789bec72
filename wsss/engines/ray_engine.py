"""A run on a Ray cluster: parts as tasks of model actors, masks as tasks on CPUs, all machines on one file system.

Scheduling, retries and back-pressure are Ray's: an `ActorPool` gives each idle actor the next part, an actor that is
lost is started again with the part that it had, and the marker and the journals of a part make the second try resume
where the first one ended.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tagclip.errors import RequirementError, RunError, TagclipError, UsageError, first_line
from wsss.files.locks import FolderBusyError
from wsss.files.provenance import write_record
from wsss.files.run_folder import RunFolder
from wsss.pipeline.mask_run import MaskRun
from wsss.pipeline.mask_workers import MaskJob, MaskPool, MaskReport, MaskStage, make_mask
from wsss.pipeline.masks import Pipeline, WorkShare, pool_of_processes
from wsss.pipeline.part_worker import PartWorker, Watch
from wsss.pipeline.planning import Plan
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_model import RunModel
from wsss.pipeline.summary import STAGES, StageTimes
from wsss.pipeline.watching import watch_nothing

EXTRA = "ray"
# Ray takes 127.0.0.1 for "an address that other machines can reach"; this one it leaves alone, and nobody else gets in.
LOOPBACK = "127.0.0.2" if sys.platform == "linux" else None
OBJECT_STORE = 200 * 2**20  # bytes; parts and reports are small, photos and masks go through the file system
MASK_RETRIES = 3  # of a mask whose worker or machine was lost
SAME_PLACE = 5  # times that a part may lose its actor without one more record, before the run gives up
PATIENCE = 120.0  # seconds that a part waits for whoever held it before
SECONDS_BETWEEN_REPORTS = 1.0


@dataclass(frozen=True)
class RayOptions:
    """How a run is spread over a cluster; nothing in the results depends on it.

    Attributes:
        address: of a running cluster ("auto": the one of this machine); None: a cluster of this machine alone, for as
            long as the run lasts.
        actors: processes with a model; None: one per GPU, or one per machine where there is none.
        gpus_per_actor: GPUs of each actor, 0.5 for two actors on one; None: 1 where the cluster has any, else 0.
        threads: of PyTorch in each actor; None: as many as here.
    """

    address: str | None = None
    actors: int | None = None
    gpus_per_actor: float | None = None
    threads: int | None = None


@dataclass(frozen=True)
class ActorOrder:
    """What an actor needs to know: small, it travels to each of them.

    Attributes:
        device: of the model, as the command line named it.
        threads: of PyTorch.
        folder: working directory, which relative paths start from.
        mask_tasks: masks that may wait or be in work for one actor.
    """

    recipe: Recipe
    identity: dict[str, Any]
    device: str
    cache_dir: Path | str | None
    threads: int
    folder: str
    mask_tasks: int


class ProgressBoard:
    """Where actors say how far they are; an actor of its own."""

    def __init__(self) -> None:
        self.parts: dict[int, tuple[dict[str, float], dict[str, int]]] = {}
        self.tries: dict[int, tuple[int, int]] = {}  # (records when it began, how often it began with as many)

    def begin(self, part: int, records: int) -> int:
        """Notes that an actor begins with a part; returns how often that was with no more records than now."""
        before, times = self.tries.get(part, (-1, 0))
        self.tries[part] = (records, times + 1 if before == records else 1)
        return self.tries[part][1]

    def report(self, part: int, seconds: dict[str, float], images: dict[str, int]) -> None:
        """Takes seconds and images of each stage of a part so far."""
        self.parts[part] = (seconds, images)

    def totals(self) -> tuple[dict[str, float], dict[str, int]]:
        """Seconds and images of each stage, of all parts."""
        seconds: Counter[str] = Counter()
        images: Counter[str] = Counter()
        for part_seconds, part_images in self.parts.values():
            seconds.update(part_seconds)
            images.update(part_images)
        return dict(seconds), dict(images)


class ModelActor:
    """A process with a model that does parts; the model is loaded for the first of them."""

    def __init__(self, board: Any):
        self.board = board
        self.order: ActorOrder | None = None
        self._worker: PartWorker | None = None
        self._part = -1
        self._told = 0.0

    def execute(self, order: ActorOrder, number: int, plan: Plan) -> float:
        """Does a part; returns the processor seconds that it took here.

        The order comes with every part and not with the actor: Ray keeps what a task needs for as long as it may have
        to be done again.

        Raises:
            RunError: see `PartWorker.execute`; also a part at which actors end again and again.
        """
        import ray

        start, self._part = time.process_time(), number
        self.order = order
        worker = self._worker = self._worker or self._make_worker(order)
        until = time.monotonic() + PATIENCE
        while True:
            try:
                times = worker.execute(number, plan, watch=self._watch)
                break
            except FolderBusyError:  # of an actor that was lost, as far as the cluster knows, and is ending
                if time.monotonic() > until:
                    raise
                time.sleep(1)
            except TagclipError as error:
                raise type(error)(str(error)) from None  # its causes may not travel
        ray.get(self._report(times))  # whoever has nothing left to do is ended as soon as this returns
        return time.process_time() - start

    def process(self) -> tuple[str, int]:
        """(node, process id) of this actor."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def _make_worker(self, order: ActorOrder) -> PartWorker:
        import torch

        from tagclip.devices import resolve_device

        enter_folder(order.folder)
        torch.set_num_threads(order.threads)
        model = RunModel(order.recipe.run, resolve_device(order.device))
        return PartWorker(
            order.recipe, order.identity, model, order.cache_dir, pool=self._pool, begun=self._begin
        )  # fmt: skip

    def _begin(self, run: RunFolder) -> None:
        import ray

        records = len(run.tags) + len(run.coverage) + len(run.failures)
        if ray.get(self.board.begin.remote(self._part, records)) > SAME_PLACE:
            raise RunError(
                f"{run.root}: part {self._part} has lost its actor {SAME_PLACE} times at the same place, most likely "
                "for want of memory: use a smaller --batch-size or masks.image.max_long_side, or a machine with more"
            )

    def _pool(self, stage: MaskStage, work: WorkShare) -> MaskPool:
        assert self.order is not None  # there is a part in work
        return pool_of_processes(stage, work) if stage.in_process else MaskTasks(stage, self.order)

    @contextlib.contextmanager
    def _watch(self, total: int, done: int) -> Iterator[Callable[[Pipeline], None]]:
        def step(pipeline: Pipeline) -> None:
            if time.monotonic() - self._told > SECONDS_BETWEEN_REPORTS:
                self._report(pipeline.times)

        yield step

    def _report(self, times: StageTimes) -> Any:
        self._told = time.monotonic()
        return self.board.report.remote(self._part, dict(times.seconds), dict(times.images))


class MaskTasks:
    """Masks as tasks of the cluster, a bounded number at a time; a `MaskPool`.

    A mask whose worker or machine is lost is made elsewhere; one that loses `MASK_RETRIES` + 1 of them has failed.
    """

    def __init__(self, stage: MaskStage, order: ActorOrder):
        import ray

        self.queue = max(1, order.mask_tasks)
        self._stage = ray.put((stage, order.folder))
        self._task = ray.remote(num_cpus=1, max_retries=MASK_RETRIES)(mask_task)
        self._jobs: dict[Any, MaskJob] = {}

    def room(self) -> int:
        """See `MaskPool.room`."""
        return self.queue - len(self._jobs)

    def submit(self, job: MaskJob) -> Iterator[tuple[MaskJob, MaskReport]]:
        """See `MaskPool.submit`."""
        while self.room() <= 0:
            yield from self._collect(wait_for_one=True)
        self._jobs[self._task.remote(self._stage, job)] = job

    def collect(self) -> Iterator[tuple[MaskJob, MaskReport]]:
        """See `MaskPool.collect`."""
        yield from self._collect(wait_for_one=False)

    def finish(self) -> Iterator[tuple[MaskJob, MaskReport]]:
        """See `MaskPool.finish`."""
        while self._jobs:
            yield from self._collect(wait_for_one=True)

    def close(self, *, cancel: bool = False) -> None:
        """See `MaskPool.close`."""
        import ray

        for task in self._jobs if cancel else ():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(task, force=True)
        self._jobs.clear()

    def _collect(self, *, wait_for_one: bool) -> Iterator[tuple[MaskJob, MaskReport]]:
        import ray

        if not self._jobs:
            return
        tasks = list(self._jobs)
        if wait_for_one:
            ray.wait(tasks, num_returns=1)
        done, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        for task in done:
            job = self._jobs.pop(task)
            try:
                report = ray.get(task)
            except ray.exceptions.RayTaskError as error:
                raise our_error(error) from None
            except ray.exceptions.RayError as error:
                problem = (
                    f"{job.image}: the workers that made its mask were lost {MASK_RETRIES + 1} times "
                    f"({first_line(error)}); most likely for want of memory: set a smaller masks.max_refine_side"
                )
                report = MaskReport({}, 0.0, problem)
            yield job, report


def mask_task(settings: tuple[MaskStage, str], job: MaskJob) -> MaskReport:
    """One mask, in a process of the cluster.

    Raises:
        RunError: full disk.
    """
    import cv2

    stage, folder = settings
    enter_folder(folder)
    cv2.setNumThreads(1)
    if stage.crf_on_tensors:
        import torch

        torch.set_num_threads(1)
    try:
        return make_mask(stage, job)
    except RunError as error:
        raise RunError(str(error)) from None


def enter_folder(folder: str) -> None:
    """Makes relative paths mean what they mean to whoever started the run.

    Raises:
        RunError: a machine without that folder.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise RunError(
            f"{folder}: {error.strerror or error} on {os.uname().nodename}; all machines of the cluster must see the "
            "folder that the run is started in, the photos and --out"
        ) from None


def our_error(error: Any) -> Exception:
    """What went wrong in a task, as it was raised there if it is one of our own."""
    cause = error.cause
    return type(cause)(str(cause)) if isinstance(cause, TagclipError) else error


def last_line(error: BaseException) -> str:
    """The end of what Ray says, where the cause stands."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__


def require_ray() -> None:
    """Makes sure that Ray is there.

    Raises:
        RequirementError: it is not; the message says how to get it.
    """
    if find_spec("ray") is None:
        raise RequirementError(f'--engine ray: needs ray: pip install "tagclip-wsss[{EXTRA}]"')


class ClusterProgress:
    """What a `Watch` is shown: the stage times of all actors together."""

    def __init__(self) -> None:
        self.times = StageTimes()

    def update(self, seconds: dict[str, float], images: dict[str, int]) -> None:
        """Takes the board's totals."""
        self.times.seconds.update(seconds)
        self.times.images = Counter(images)


def run_on_ray(
    run: MaskRun, options: RayOptions | None = None, *, strict: bool = False, watch: Watch = watch_nothing
) -> RunFolder:
    """Does what is left of a run on a cluster, up to a complete folder: the bytes of one process.

    What a complete folder needs (other rules, more photos) is done here, without the cluster.

    Args:
        run: its settings name a device that the actors have, too.
        strict, watch: see `MaskRun.execute`.

    Returns:
        The run folder, closed, see `MaskRun.execute`.

    Raises:
        RequirementError: no Ray.
        UsageError: no such cluster, or one with too few CPUs or GPUs; corrections.
        RunError: see `MaskRun.execute_parts` and `MaskRun.merge`.
    """
    require_ray()
    options = options or RayOptions()
    missing = run.begin_parts(range(len(run.parts)))
    if not missing:
        return run.merge(strict=strict, watch=watch)
    start = time.perf_counter()
    with _cluster(options, run) as (actors, gpus, cpus):
        progress, core_seconds = _do_parts(run, missing, options, actors, gpus, cpus, watch)
    done = run.merge(strict=strict, watch=watch)
    times = {
        "seconds": {name: round(progress.times.seconds[name], 3) for name in STAGES if progress.times.images[name]},
        "images": {name: progress.times.images[name] for name in STAGES if progress.times.images[name]},
        "wall": round(time.perf_counter() - start, 3),
        "core_seconds": round(core_seconds, 3),
        "mask_workers": max(1, cpus - actors),
        "actors": actors,
    }
    write_record(done.root / "times.json", times)
    done.times = times
    return done


@contextlib.contextmanager
def _cluster(options: RayOptions, run: MaskRun) -> Iterator[tuple[int, float, int]]:
    """A cluster while the context lasts: (actors, GPUs of each, CPUs in all)."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    share = run.recipe.work(run.plan.sizes())
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": "error"}
    ours = not ray.is_initialized()
    if options.address is not None and ours:
        try:
            ray.init(address=options.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"--address {options.address}: no Ray cluster there ({first_line(error)}); start one with `ray start "
                "--head`"
            ) from None
    elif ours:
        local: dict[str, Any] = {"num_cpus": (options.actors or 1) + share.mask_workers}
        if LOOPBACK is not None:
            local["_node_ip_address"] = LOOPBACK
        try:
            ray.init(
                address="local", include_dashboard=False, object_store_memory=OBJECT_STORE, **local, **quiet
            )  # fmt: skip
        except Exception as error:  # Ray has no narrower one
            raise RunError(
                f"--engine ray: no cluster can be started on this machine ({first_line(error)}); it may have too much "
                "other work"
            ) from None
    try:
        yield _share_out(options, run.device.partition(":")[0], ray.cluster_resources(), len(ray.nodes()))
    finally:
        if ours:
            ray.shutdown()


def _share_out(options: RayOptions, device: str, resources: dict[str, float], machines: int) -> tuple[int, float, int]:
    """(actors, GPUs of each, CPUs of the cluster) that the options and the cluster's resources make.

    Raises:
        UsageError: the cluster has too few of something.
    """
    cpus, there = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
    gpus = options.gpus_per_actor
    if gpus is None:
        gpus = 1.0 if there and device != "cpu" else 0.0
    most = math.floor(there / gpus + 1e-9) if gpus else cpus - 1
    actors = options.actors or (most if gpus else min(machines, most))
    if gpus and (most < 1 or actors > most):
        raise UsageError(
            f"--gpus-per-actor {gpus:g}: the cluster has {there:g} GPUs, which is enough for {most} actors, not "
            f"{max(actors, 1)}"
        )
    if actors < 1 or actors >= cpus:
        raise UsageError(
            f"--actors {max(actors, 1)}: the cluster has {cpus} CPUs; each actor takes one, and masks need one more"
        )
    return actors, gpus, cpus


def _do_parts(
    run: MaskRun, missing: list[int], options: RayOptions, actors: int, gpus: float, cpus: int, watch: Watch
) -> tuple[ClusterProgress, float]:
    import ray
    from ray.util import ActorPool

    actors = min(actors, len(missing))
    order = ray.put(_order(run, options, max(1, math.ceil((cpus - actors) / actors))))
    forever = {"max_restarts": -1, "max_task_retries": -1}
    board = ray.remote(ProgressBoard).options(num_cpus=0, **forever).remote()
    maker = ray.remote(ModelActor).options(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD", **forever)
    pool = ActorPool([maker.remote(board) for _ in range(actors)])
    for number in missing:
        pool.submit(lambda actor, number: actor.execute.remote(order, number, run.parts[number].spelled_out()), number)
    total = sum(len(plan.order) for plan in run.parts)
    done = total - sum(len(run.parts[number].order) for number in missing)
    progress, core_seconds = ClusterProgress(), 0.0
    with watch(total, done) as step:
        while pool.has_next():
            try:
                core_seconds += pool.get_next_unordered(timeout=SECONDS_BETWEEN_REPORTS)
            except TimeoutError:
                pass
            except ray.exceptions.RayTaskError as error:
                raise our_error(error) from None
            except ray.exceptions.RayError as error:
                raise RunError(
                    f"an actor of the Ray cluster has ended: {last_line(error)}; all machines need the same "
                    "installation; the same command resumes the run"
                ) from None
            else:
                if run.mirror is not None:
                    run.mirror.push()
            # An idle actor has nothing left to do: its place is for actors that were lost with their machine.
            while (idle := pool.pop_idle()) is not None:
                ray.kill(idle)
            _show(board, progress, step)
        _show(board, progress, step, patience=10.0)
    return progress, core_seconds


def _show(
    board: Any, progress: ClusterProgress, step: Callable[[Any], None], patience: float = SECONDS_BETWEEN_REPORTS
) -> None:
    import ray

    try:
        progress.update(*ray.get(board.totals.remote(), timeout=patience))
    except ray.exceptions.RayError:  # on its way to another machine
        return
    step(progress)


def _order(run: MaskRun, options: RayOptions, mask_workers: int) -> ActorOrder:
    import torch

    share = run.recipe.run.work
    recipe = replace(run.recipe, run=replace(run.recipe.run, work=replace(share, mask_workers=mask_workers)))
    return ActorOrder(
        recipe, run.identity(), run.device.partition(":")[0], run.cache_dir, options.threads or torch.get_num_threads(),
        str(Path.cwd()), mask_workers * share.mask_queue,
    )  # fmt: skip

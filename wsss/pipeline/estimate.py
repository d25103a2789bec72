"""What a run would take: a few of its images are really done, in a folder that goes away, and the rest is scaled."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tagclip.errors import RunError
from wsss.files.run_folder import RunFolder
from wsss.pipeline.masks import Pipeline, WorkShare, run_pipeline
from wsss.pipeline.memory import cores, mask_memory
from wsss.pipeline.planning import Plan, PlannedImage
from wsss.pipeline.summary import duration

if TYPE_CHECKING:
    from wsss.pipeline.mask_run import MaskRun

SAMPLES = 3
MODEL_STAGES = ("trunk", "tags", "cams", "write")


@dataclass(frozen=True)
class Estimate:
    """What a run would take; seconds and bytes are scaled from the sample.

    Attributes:
        images, unreadable, batches, classes: counts.
        model_seconds: of all batches one after the other.
        mask_seconds: of all masks, on one core each.
        wall_seconds: of the whole run on this machine.
        mask_workers: processes that make masks. worker_bytes: memory that one of them takes at most.
        disk_bytes: of the run folder.
        free_bytes: on the disk that it would lie on.
        sample: images that were measured.
    """

    images: int
    unreadable: int
    batches: int
    classes: int
    model_seconds: float
    mask_seconds: float
    wall_seconds: float
    mask_workers: int
    worker_bytes: int
    disk_bytes: int
    free_bytes: int
    sample: int

    def text(self) -> str:
        """A few lines for the screen."""
        short = "; NOT ENOUGH" if self.disk_bytes > self.free_bytes else ""
        return "\n".join(
            [
                f"{self.images} images in {self.batches} batches, {self.unreadable} unreadable; {self.classes} classes",
                f"time: about {duration(self.wall_seconds)} (model {duration(self.model_seconds)}, "
                f"masks {duration(self.mask_seconds)} of one core), measured on {self.sample} images",
                f"memory: {self.mask_workers} mask workers of at most {self.worker_bytes / 2**20:.0f} MiB each",
                f"disk: about {self.disk_bytes / 2**20:.1f} MiB of {self.free_bytes / 2**20:.0f} MiB free{short}",
            ]
        )


def estimate(mask_run: MaskRun) -> Estimate:
    """Does a few images of a plan, spread over its patch grids, and scales by patches and pixels.

    Raises:
        RunError: none of them can be done.
    """
    plan, recipe = mask_run.plan, mask_run.recipe
    images = sorted(plan.images, key=lambda image: (image.grid.count, image.id))
    steps = sorted({round(part * (len(images) - 1) / max(SAMPLES - 1, 1)) for part in range(SAMPLES)}) if images else []
    sample = [images[step] for step in steps]
    tagger, maps = mask_run.stages()

    def measure(chosen: list[PlannedImage], folder: Path) -> tuple[Pipeline, int]:
        small = Plan([image.id for image in chosen], [[image] for image in chosen])
        with RunFolder.open(folder, {}, {}) as run:
            pipeline = Pipeline(
                run, mask_run.clip, recipe.vocabulary, maps, recipe.masks, tagger=tagger, tags=mask_run.tags,
                work=WorkShare(1, 1, 1, recipe.run.raw_cams),
            )  # fmt: skip
            run_pipeline(pipeline, small)
        parts = [folder / "tags.jsonl", *folder.glob("cams/**/*.npz"), *folder.glob("masks/**/*.png")]
        return pipeline, sum(path.stat().st_size for path in parts)

    with tempfile.TemporaryDirectory() as temporary:
        measure(sample[:1], Path(temporary) / "warm")  # first calls allocate and tune
        pipeline, size = measure(sample, Path(temporary) / "measured")
    times = pipeline.times
    done = times.images["masks"]
    if not done:
        raise RunError(f"none of {len(sample)} images that were tried can be done; a run says why in failures.jsonl")
    scale = sum(image.grid.count for image in images) / sum(image.grid.count for image in sample)
    area = [sum(image.size.height * image.size.width for image in group) for group in (images, sample)]
    model = scale * sum(times.seconds[stage] for stage in MODEL_STAGES)
    masks = area[0] / area[1] * times.seconds["masks"]
    share = recipe.work(image.size for image in images)
    workers = 1 if pipeline.stage.in_process else min(share.mask_workers, cores())
    # On a CPU the model and the mask workers share the cores; beside an accelerator they overlap.
    shared = mask_run.clip.device.type == "cpu"
    wall = model + masks / workers if shared else max(model, masks / workers)
    folder = Path(recipe.run.out).absolute()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    return Estimate(
        len(plan.order), len(plan.unreadable), len(plan.batches), len(recipe.vocabulary), model, masks, wall,
        workers, max(mask_memory(image.size, recipe.masks) for image in images),
        int(scale * size), free, done,
    )  # fmt: skip

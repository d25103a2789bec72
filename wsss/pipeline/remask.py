"""Masks again from the class maps that a run keeps, with other settings of what follows the maps: no model needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagclip.errors import RunError, UsageError
from tagclip.vocabulary import Vocabulary
from wsss.config import AFTER_THE_MAPS, MaskConfig
from wsss.files.atomic import disk_errors, is_whole
from wsss.files.classes import write_vocabulary
from wsss.files.locks import folder_lock
from wsss.files.provenance import claim_masks
from wsss.files.run_files import read_manifest
from wsss.files.run_reader import RunReader
from wsss.files.sources import open_source, shown
from wsss.masks.crf import settle_engine
from wsss.pipeline.mask_workers import MaskJob, MaskReport, MaskStage, MaskWorkers
from wsss.pipeline.recipe import segmenter_digest


@dataclass(frozen=True)
class Remasking:
    """What is to be done.

    Attributes:
        run: a finished run folder of stage two.
        out: folder for the masks, `<id>.png`, and `masks.json`, which says how they were made.
        config: the run's settings with the changes.
        vocabulary: the run's.
        jobs: images whose mask is not there yet. done: how many are.
        device: where PAMR and the CRF on tensors run.
    """

    run: Path
    out: Path
    config: MaskConfig
    vocabulary: Vocabulary
    jobs: tuple[MaskJob, ...]
    done: int
    device: str = "cpu"

    @classmethod
    def plan(
        cls,
        run: Path,
        out: Path,
        changes: Mapping[str, Any],
        *,
        overwrite: bool = False,
        device: str = "cpu",
        image_root: Path | str | None = None,
        save_confidence: bool = False,
    ) -> Remasking:
        """Reads the run and what an earlier call has left in `out`.

        Args:
            changes: fields of `MaskConfig`, nested, that differ from the run's; only those that act after the maps.
            overwrite: masks in `out` that were made with other settings are made again.
            device: where PAMR and the CRF on tensors will run.
            image_root: where the photos are now; None: where they were when the run was made.
            save_confidence: write the confidence of each mask, too, into the folder beside `out` whose name ends in
                "-confidence" (`confidence_folder`): every PNG in `out` is a mask.

        Raises:
            UsageError: no run with maps, a setting that the maps depend on, or a folder that is not ours.
            RunError: `out` holds masks of other settings, or another process works in it.
        """
        manifest = read_manifest(run)
        if manifest is None or "masks" not in manifest:
            raise UsageError(f"{run}: no run of stage two (`tagclip run` or `tagclip mask` makes one)")
        if changed := [name for name in changes if name not in AFTER_THE_MAPS]:
            raise UsageError(
                f"masks.{changed[0]}: the maps depend on it, so it needs a run of its own; here: "
                f"{', '.join(AFTER_THE_MAPS)}"
            )
        config = MaskConfig.from_dict(dict(changes), MaskConfig.from_dict(manifest["masks"]))
        config = settle_engine(config, device)
        vocabulary = Vocabulary.from_dict(manifest["vocabulary"])
        config = config.for_labels(vocabulary.label_count)
        source = open_source(run, layout="run", vocabulary=vocabulary, image_root=image_root)
        sure = confidence_folder(out) if save_confidence else None
        with folder_lock(out, f"--out {out}"):
            made_with = mask_identity(config)
            claim_masks(out, {"masks": made_with}, overwrite=overwrite, name=f"--out {out}")
            write_vocabulary(out, vocabulary)
            if sure is not None:
                claim_masks(sure, {"masks": made_with, "confidence": True}, overwrite=overwrite, name=f"{sure}")
        reader = RunReader(run)
        jobs = [
            MaskJob(
                one.id, one.image, reader.place("cams", one.id), out / f"{one.id}.png", one.file_size,
                None if sure is None else sure / f"{one.id}.png",
            )
            for one in source.samples
        ]  # fmt: skip
        left = tuple(job for job in jobs if not _is_done(job))
        return cls(run, out, config, vocabulary, left, len(jobs) - len(left), device)

    def execute(self, workers: int, progress: Callable[[int], object] = lambda done: None) -> None:
        """Makes the masks that are not there yet; a call that was killed is gone on with by the same call.

        Args:
            workers: mask processes. progress: called with the number of masks that are there.

        Raises:
            RunError: a full disk, or images or maps that cannot be read; all the others are done first.
        """
        with folder_lock(self.out, f"--out {self.out}"):
            self._execute(workers, progress)

    def _execute(self, workers: int, progress: Callable[[int], object]) -> None:
        scratch = self.out / ".partial"
        shutil.rmtree(scratch, ignore_errors=True)  # what a killed call left half written
        with disk_errors(scratch):
            scratch.mkdir(parents=True)
        vocabulary = self.vocabulary
        stage = MaskStage(
            self.config, vocabulary.has_background, vocabulary.label_palette, scratch, self.device
        )
        pool = MaskWorkers(stage, workers, 8 * workers, in_process=stage.in_process)
        problems, done = [], self.done

        def note(finished: Iterable[tuple[MaskJob, MaskReport]]) -> None:
            nonlocal done
            for _, report in finished:
                done += 1
                if report.problem is not None:
                    problems.append(report.problem)
                progress(done)

        try:
            for job in self.jobs:
                note(pool.submit(job))
            note(pool.finish())
            pool.close()
        except BaseException:
            pool.close(cancel=True)
            raise
        shutil.rmtree(scratch, ignore_errors=True)
        if problems:
            raise RunError(f"{self.run}: {len(problems)} masks could not be made: {shown(problems[:3])}")


def confidence_folder(out: Path) -> Path:
    """Where `remask` writes the confidence of the masks in a folder."""
    return out.with_name(f"{out.name}-confidence")


def _is_done(job: MaskJob) -> bool:
    files = [file for file in (job.mask, job.confidence) if file is not None]
    return all(file.is_file() and is_whole(file) for file in files)


def mask_identity(config: MaskConfig) -> dict[str, Any]:
    """The settings that masks of stored maps depend on; a segmenter's only if it is used: older folders know none."""
    settings = config.to_dict()
    if config.refiner == "sam":
        settings["sam"]["weights"] = segmenter_digest(config.sam.weights)
    else:
        del settings["sam"]
    return settings


def mask_changes(options: Mapping[str, Any]) -> dict[str, Any]:
    """{"masks.crf.iterations": 5} -> {"crf": {"iterations": 5}}; None is left out.

    Raises:
        UsageError: a key that does not begin with "masks.".
    """
    changes: dict[str, Any] = {}
    for key, value in options.items():
        if value is None:
            continue
        first, *path = key.split(".")
        if first != "masks" or not path:
            raise UsageError(f"--set {key}: only masks.* can be set here")
        inner = changes
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return changes

"""Trains a segmentor on a run's masks and says how good it became."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, is_main_process
from mmengine.runner import Runner, find_latest_checkpoint
from tqdm import tqdm

from tagclip.errors import RunError, TagclipError, UsageError
from tagclip.vocabulary import Vocabulary
from wsss.files.atomic import disk_errors
from wsss.files.digests import file_digest, files_digest
from wsss.files.provenance import read_record, refuse_other, write_record
from wsss.files.sources import MaskSource, open_source
from wsss.segmentation.checkpoints import load_segmentor, read_harmless
from wsss.segmentation.class_balance import ClassBalance
from wsss.segmentation.curves import draw_curves, read_curves
from wsss.segmentation.outcome import Outcome, Summary, mask_quality
from wsss.segmentation.predictor import Predictor
from wsss.segmentation.preflight import PreflightConfig, PreflightReport, check_masks
from wsss.segmentation.self_training import SelfTrainingConfig, relabel
from wsss.segmentation.train_settings import (
    TrainRequest,
    applies_exif,
    fingerprint,
    resolve_config,
    self_training_of,
    start_cpu_group,
)

FINGERPRINT = "training.json"
CHECKPOINTS = ("iter_*.pth", "best_mIoU_iter_*.pth", "last_checkpoint")


def train_segmentor(request: TrainRequest) -> Summary:
    """Checks the masks, trains, and where asked trains on the truth as well and self-trains.

    Artefacts in the work folder: checkpoints (`best_mIoU_iter_*.pth`, `iter_*.pth`), `curves.png`, TensorBoard events,
    `summary.json`, `summary.txt`; subfolders `ground_truth/` and `round1/`, ... hold the other trainings.

    Returns:
        The summary, also on disk. On other ranks than the first only its outcomes may be incomplete.

    Raises:
        UsageError: wrong config, option or folder.
        RunError: bad masks, a work folder of another run, a full disk, too little memory.
    """
    cfg, vocabulary = resolve_config(request)
    self_training = self_training_of(cfg, request)
    if self_training.rounds and request.launcher != "none":
        raise UsageError("self-training runs in one process: leave --launcher out, or set --rounds 0")
    source = _training_source(request, cfg, vocabulary)
    balance = ClassBalance.of(cfg)
    checked = _preflight(request, cfg, source, vocabulary, balance)
    if checked:
        balance.apply(cfg, checked.pixels)
    truth = _truth_source(request.ground_truth, source, vocabulary) if request.ground_truth else None
    work_dir = Path(cfg.work_dir)

    summary = Summary(
        config=str(request.config),
        run=str(request.run),
        val=str(request.val) if request.val else None,
        images=len(source.samples),
        ignored_share=checked.ignored_share if checked else 0.0,
        masks=mask_quality(source, truth, vocabulary.label_names) if truth else None,
    )
    judged = _validation_source(request, cfg, vocabulary)
    summary.outcomes.append(_fit(cfg, "pseudo masks", source, judged))
    for number in range(1, self_training.rounds + 1):
        folder = work_dir / f"round{number}"
        masks = _next_masks(summary.outcomes[-1], source, vocabulary, folder, self_training)
        round_cfg, _ = resolve_config(replace(request, mask_dir=masks, work_dir=folder))
        if checked:
            balance.apply(round_cfg, checked.pixels)
        relabelled = _training_source(request, round_cfg, vocabulary)
        summary.outcomes.append(_fit(round_cfg, f"self-training round {number}", relabelled, judged))
    if truth is not None:
        truth_request = replace(
            request, run=truth.root, vocabulary=vocabulary,
            image_root=None,
            train_list=_write_ids(work_dir, truth), mask_dir=None, work_dir=work_dir / "ground_truth",
        )
        truth_cfg, _ = resolve_config(truth_request)
        truth_cfg.train_dataloader.dataset.image_weight = None
        if balance.power:
            upright = _upright(request, truth_cfg.train_dataloader.dataset)
            balance.apply(truth_cfg, check_masks(truth, vocabulary.label_names, upright).pixels)
        summary.outcomes.append(_fit(truth_cfg, "ground truth", truth, judged))
    if is_main_process():
        summary.write(work_dir)
    return summary


def _preflight(
    request: TrainRequest, cfg: Config, source: MaskSource, vocabulary: Vocabulary, balance: ClassBalance
) -> PreflightReport | None:
    """Checks the training and the validation masks; of several processes the first, or all if they need the counts."""
    first = _rank(request.launcher) == 0
    if not first and not balance.power:
        return None
    names = vocabulary.label_names
    upright = _upright(request, cfg.train_dataloader.dataset)
    total = len(source.samples)
    with tqdm(total=total, desc="checking masks", unit="img", disable=None, leave=False) as bar:
        report = check_masks(source, names, upright, lambda done: bar.update(done - bar.n))
    judged = _validation_source(request, cfg, vocabulary)
    if judged is not None and first:
        check_masks(judged, names, _upright(request, cfg.val_dataloader.dataset))
    return report


def _training_source(request: TrainRequest, cfg: Config, vocabulary: Vocabulary) -> MaskSource:
    settings = cfg.train_dataloader.dataset
    places = {key: settings.get(key) for key in ("ann_file", "mask_dir", "image_root")}
    return open_source(request.run, vocabulary=vocabulary, **places)


def _validation_source(request: TrainRequest, cfg: Config, vocabulary: Vocabulary) -> MaskSource | None:
    if request.val is None:
        return None
    settings = cfg.val_dataloader.dataset
    return open_source(
        request.val, ann_file=settings.get("ann_file"), split=settings.get("split"), vocabulary=vocabulary
    )


def _upright(request: TrainRequest, dataset: Any) -> PreflightConfig:
    return replace(request.preflight, apply_exif=applies_exif(dataset.pipeline))


def _rank(launcher: str) -> int:
    """Number of this process among those of a launcher; independent trainings under srun are each the first."""
    if launcher == "none":
        return 0
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def _truth_source(folder: Path, source: MaskSource, vocabulary: Vocabulary) -> MaskSource:
    truth = open_source(folder, vocabulary=vocabulary).select([sample.id for sample in source.samples])
    if not truth.samples:
        raise UsageError(f"--ground-truth {folder}: no masks for the images of {source.root}")
    return truth


def _write_ids(work_dir: Path, source: MaskSource) -> str:
    path = (work_dir / "ground_truth" / "ids.txt").absolute()
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{sample.id}\n" for sample in source.samples), encoding="utf-8")
    return str(path)


def _fit(cfg: Config, title: str, source: MaskSource, judged: MaskSource | None) -> Outcome:
    """One training on `source`, validated on `judged`, from its config to its outcome; one that has ended is read."""
    work_dir = Path(cfg.work_dir)
    _prepare_folder(cfg, work_dir, source, judged)
    if not _has_ended(cfg, work_dir):
        _run(cfg, work_dir)
    barrier()
    if is_main_process():
        draw_curves(read_curves(work_dir), work_dir / "curves.png")
    return Outcome.read(title, work_dir)


def _has_ended(cfg: Config, work_dir: Path) -> bool:
    """Whether the last checkpoint is that of the last iteration; resuming would load every batch again to skip it."""
    if not cfg.resume or cfg.launcher != "none":  # several processes find each other in the Runner
        return False
    latest = find_latest_checkpoint(str(work_dir))
    return latest is not None and Path(latest).name == f"iter_{cfg.train_cfg.max_iters}.pth" and Path(latest).is_file()


def _run(cfg: Config, work_dir: Path) -> None:
    start_cpu_group(cfg.launcher)
    for path in _files_to_load(cfg, work_dir):
        read_harmless(path)
    try:
        with disk_errors(work_dir), download_errors(cfg):
            Runner.from_cfg(cfg).train()
    except TagclipError:
        raise
    except FileNotFoundError as error:
        raise RunError(f"{work_dir}: {error}; start anew with --overwrite") from None
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        if "out of memory" in str(error).lower():
            raise RunError(
                f"{get_device()} is out of memory; lower train_dataloader.batch_size or the crop size"
            ) from None
        raise


@contextlib.contextmanager
def download_errors(cfg: Config) -> Iterator[None]:
    """Turns a download of weights that fails into one line with the remedy; it is an OSError, too.

    Raises:
        RunError: instead of any error of the network inside.
    """
    try:
        yield
    except (URLError, ConnectionError, TimeoutError) as error:
        weights = cfg.model.get("pretrained") or "weights of the backbone"
        reason = getattr(error, "reason", error)
        raise RunError(
            f"{weights} cannot be downloaded ({reason}); --backbone-weights FILE takes a file that was downloaded "
            "elsewhere, --backbone-weights none starts from random weights"
        ) from None


def _files_to_load(cfg: Config, work_dir: Path) -> list[Path]:
    """Local weight files that mmengine is going to read."""
    resumed = find_latest_checkpoint(str(work_dir)) if cfg.resume else None
    starts = cfg.model.backbone.get("init_cfg") or []
    backbone = [start.get("checkpoint") for start in (starts if isinstance(starts, list | tuple) else [starts])]
    names = [resumed or cfg.load_from, cfg.model.get("pretrained"), *backbone]
    return [Path(name) for name in names if name and "://" not in str(name)]


def _prepare_folder(cfg: Config, work_dir: Path, source: MaskSource, judged: MaskSource | None) -> None:
    """Refuses to resume a training of other settings or masks; remembers those of a new one."""
    if _rank(cfg.launcher) != 0:
        return
    mine = fingerprint(cfg) | {"masks": _masks_digest(source, work_dir / "masks_seen.json")}
    if judged is not None:
        mine["validation_masks"] = _masks_digest(judged, work_dir / "validation_masks_seen.json")
    path = work_dir / FINGERPRINT
    if not cfg.resume:
        _clear(work_dir)
    elif any(work_dir.glob("iter_*.pth")):  # without one there is nothing to resume
        if not path.is_file():
            raise RunError(f"{work_dir} holds checkpoints of another training; take another --out or --overwrite")
        there, remedy = read_record(path, "start anew with --overwrite"), "take another --out, or --overwrite"
        refuse_other(f"--out {work_dir}", "belongs to a training", there, mine, remedy)
    write_record(path, mine, indent=0)


def _masks_digest(source: MaskSource, cache: Path) -> str:
    return files_digest(((sample.id, sample.mask) for sample in source.samples), cache)


def _clear(work_dir: Path) -> None:
    """Removes what an earlier training left, and nothing else."""
    for pattern in (*CHECKPOINTS, FINGERPRINT, "curves.png", "summary.*", "*masks_seen.json"):
        for path in work_dir.glob(pattern):
            path.unlink()
    for path in work_dir.glob("*/vis_data"):
        shutil.rmtree(path.parent)
    for path in work_dir.glob("round*/masks"):
        shutil.rmtree(path)


def _next_masks(
    outcome: Outcome, source: MaskSource, vocabulary: Vocabulary, folder: Path, settings: SelfTrainingConfig
) -> Path:
    """Predicts the next round's masks with the best checkpoint so far; returns their folder."""
    out = folder / "masks"
    predictor = Predictor(load_segmentor(outcome.checkpoint, device=get_device()))
    with tqdm(total=len(source.samples), desc=f"{folder.name} masks", unit="img", disable=None, leave=False) as bar:
        checkpoint = file_digest(Path(outcome.checkpoint))
        relabel(predictor, source, vocabulary, out, settings, lambda done: bar.update(done - bar.n), made_by=checkpoint)
    return out

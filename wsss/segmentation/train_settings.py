"""From a config and the command line's wishes to the config that mmengine's Runner gets."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from wsss.configs import read_config
from wsss.files.lists import find_list
from wsss.files.sources import VocabularySource, load_vocabulary
from wsss.segmentation.many_labels import settle_labels
from wsss.segmentation.preflight import PreflightConfig
from wsss.segmentation.self_training import SelfTrainingConfig

POOLING_HEADS = ("ASPPHead", "DepthwiseSeparableASPPHead", "PSPHead")
LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
# What may differ between the start and the resumption of a run without changing what is trained.
VOLATILE = (
    "work_dir", "launcher", "resume", "load_from", "log_level", "log_processor", "env_cfg", "visualizer",
    "vis_backends",
    "default_hooks", "custom_hooks", "experiment_name", "model_wrapper_cfg", "self_training", "tta_model",
    "tta_pipeline", "multi_scale_test", "data_sets", "test_dataloader", "test_evaluator", "test_cfg",
)  # fmt: skip
VOLATILE_ENDINGS = ("num_workers", "persistent_workers")


@dataclass(frozen=True)
class TrainRequest:
    """What `tagclip train` and `tagclip run --train` ask for.

    Attributes:
        config: name of a shipped config ("segmentation/deeplabv3plus_r18_custom"), or path of a config file.
        run: run folder, or VOC-layout folder, with the training masks.
        val: folder to validate on (VOC layout or run folder); None trains without validation.
        work_dir: where checkpoints and logs go; None for `<run>/segmentation`.
        vocabulary: classes, overriding the config's; None leaves the config's, whose None means the run's own.
        train_list, val_list: id lists.
        mask_dir: masks to train on instead of the run's.
        image_root: where the run's photos are now; None: where they were when it was made.
        ground_truth: folder with the true masks of the training images; a second model is trained on them and both
            are put side by side.
        iterations: length of training; schedule and intervals are scaled with it.
        pretrained: backbone weights: "none", a file, "torchvision://...", "open-mmlab://..."; None leaves the config's.
        load_from: checkpoint whose weights training starts from.
        options: values written over the config, dotted keys.
        resume: continue where an earlier call stopped.
        overwrite: start anew in a work folder of another run.
        amp: mixed precision.
        launcher: "none", "pytorch" (torchrun), "slurm" or "mpi".
        seed: of initialisation and data order; None leaves the config's.
        rounds: rounds of self-training; None leaves the config's.
        preflight: what to check of every mask before training.
    """

    config: str | Path
    run: Path
    val: Path | None = None
    work_dir: Path | None = None
    vocabulary: VocabularySource | None = None
    train_list: str | None = None
    val_list: str | None = None
    mask_dir: Path | None = None
    image_root: Path | None = None
    ground_truth: Path | None = None
    iterations: int | None = None
    pretrained: str | None = None
    load_from: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = True
    overwrite: bool = False
    amp: bool = False
    launcher: str = "none"
    seed: int | None = None
    rounds: int | None = None
    preflight: PreflightConfig = field(default_factory=PreflightConfig)


def resolve_config(request: TrainRequest) -> tuple[Config, Vocabulary]:
    """The config that is trained, and its classes.

    Raises:
        UsageError: no such config, a wrong option, or options that cannot go together.
    """
    cfg = read_config(request.config)
    _merge(cfg, request.options)
    vocabulary = _set_data(cfg, request)
    _set_classes(cfg, vocabulary)
    if request.iterations is not None:
        _set_length(cfg, request.iterations)
    if request.pretrained is not None:
        _set_pretrained(cfg, request.pretrained)
    if request.seed is not None:
        cfg.randomness = ConfigDict(cfg.get("randomness") or {}, seed=request.seed)
    for part in cfg:
        settle_labels(cfg[part], vocabulary.label_count)
    _merge(cfg, request.options)  # once more: what was asked for by name wins over what was derived
    cfg.work_dir = str(Path(request.work_dir or Path(request.run, "segmentation")).absolute())
    # The Runner's global logger and message hub are found by this name; two trainings must not share them.
    cfg.experiment_name = f"{Path(request.config).stem}-{uuid.uuid4().hex[:8]}"
    cfg.resume = request.resume and not request.overwrite
    cfg.load_from = str(request.load_from) if request.load_from else cfg.get("load_from")
    if cfg.load_from and not cfg.resume and not Path(cfg.load_from).is_file() and "://" not in cfg.load_from:
        raise UsageError(f"--load-from {cfg.load_from} does not exist")
    _set_device(cfg, request)
    _check_batch(cfg)
    return cfg, vocabulary


def self_training_of(cfg: Config, request: TrainRequest) -> SelfTrainingConfig:
    """The config's self-training settings, with the request's number of rounds."""
    values = dict(cfg.get("self_training") or {})
    if request.rounds is not None:
        values["rounds"] = request.rounds
    values["apply_exif"] = applies_exif(cfg.train_dataloader.dataset.pipeline)
    try:
        return SelfTrainingConfig(**values)
    except TypeError as error:
        raise UsageError(f"self_training in the config: {error}") from None


def applies_exif(pipeline: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a pipeline turns photos upright, as its loader says (mmcv's own always does)."""
    return all(step.get("apply_exif", True) for step in pipeline)


def fingerprint(cfg: Config) -> dict[str, str]:
    """Everything that decides what is trained, flat, for comparison with an earlier start."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        elif not prefix.endswith(VOLATILE_ENDINGS):
            flat[prefix] = repr(list(value) if isinstance(value, tuple) else value)

    for key, value in cfg.to_dict().items():
        if key not in VOLATILE:
            walk(key, value)
    return flat


def _merge(cfg: Config, options: Mapping[str, Any]) -> None:
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError, IndexError, ValueError, AssertionError) as error:
        raise UsageError(f"--set {' '.join(f'train.{key}' for key in options)}: {error}") from None


def _set_data(cfg: Config, request: TrainRequest) -> Vocabulary:
    train = cfg.train_dataloader.dataset
    if train.get("type") != "PseudoMaskDataset":
        raise UsageError(f"config {request.config} trains on {train.get('type')}, not on PseudoMaskDataset")
    # Absolute paths: the config goes into checkpoints, and a resumed training may begin elsewhere.
    train.data_root = str(Path(request.run).absolute())
    if request.train_list:
        train.ann_file = str(find_list(request.run, request.train_list).absolute())
    if request.mask_dir:
        inside = Path(request.run, request.mask_dir)
        train.mask_dir = str((inside if inside.is_dir() else Path(request.mask_dir)).absolute())
    if request.image_root:
        train.image_root = str(Path(request.image_root).absolute())
    wanted = request.vocabulary or train.get("vocabulary")
    vocabulary = load_vocabulary(wanted, request.run)
    train.vocabulary = given = _handed_on(wanted, vocabulary)
    if request.val is None:
        for key in ("val_dataloader", "val_evaluator", "val_cfg", "test_dataloader", "test_evaluator", "test_cfg"):
            cfg[key] = None
        cfg.default_hooks.checkpoint.pop("save_best", None)
        cfg.default_hooks.checkpoint.pop("rule", None)
    else:
        validation = cfg.val_dataloader.dataset
        validation.data_root = str(Path(request.val).absolute())
        validation.layout = "auto"
        validation.vocabulary = vocabulary.to_dict() if given is None else given
        if request.val_list:
            validation.ann_file = str(find_list(request.val, request.val_list).absolute())
        cfg.test_dataloader = cfg.val_dataloader
        cfg.test_evaluator = cfg.val_evaluator
    for key in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if cfg.get(key) and cfg[key].get("num_workers", 0) == 0:
            cfg[key].persistent_workers = False
    return vocabulary


def _handed_on(wanted: VocabularySource | None, vocabulary: Vocabulary) -> str | dict[str, Any] | None:
    """What the data sets get: a built-in name, None for the run's own classes, and else the whole vocabulary.

    A list of names would lose the palette and whether there is a background, and a file may be gone tomorrow.
    """
    if wanted is None or (isinstance(wanted, str) and wanted in Vocabulary.built_in()):
        return wanted
    return vocabulary.to_dict()


def _set_classes(cfg: Config, vocabulary: Vocabulary) -> None:
    count = len(vocabulary.label_names)
    heads = [cfg.model.decode_head, cfg.model.get("auxiliary_head")]
    for head in heads:
        for one in head if isinstance(head, list) else [head]:
            if one:
                one.num_classes = count


def _set_length(cfg: Config, iterations: int) -> None:
    if iterations < 1:
        raise UsageError(f"--iterations {iterations} must be at least 1")
    before = cfg.train_cfg.max_iters
    factor = iterations / before
    cfg.train_cfg.max_iters = iterations
    cfg.train_cfg.val_interval = max(1, round(cfg.train_cfg.val_interval * factor))
    checkpoint = cfg.default_hooks.checkpoint
    checkpoint.interval = max(1, round(checkpoint.interval * factor))
    cfg.default_hooks.logger.interval = max(1, min(cfg.default_hooks.logger.interval, iterations // 20))
    for scheduler in cfg.param_scheduler:
        scheduler.begin = round(scheduler.get("begin", 0) * factor)
        scheduler.end = round(scheduler.get("end", before) * factor)


def _set_pretrained(cfg: Config, pretrained: str) -> None:
    cfg.model.backbone.pop("init_cfg", None)
    if pretrained == "none":
        cfg.model.pretrained = None
        return
    if "://" not in pretrained and not Path(pretrained).is_file():
        raise UsageError(f"--backbone-weights {pretrained} does not exist; give a file, a torchvision:// name, or none")
    cfg.model.pretrained = pretrained


def _set_device(cfg: Config, request: TrainRequest) -> None:
    if request.launcher not in LAUNCHERS:
        raise UsageError(f"--launcher {request.launcher} is not one of {', '.join(LAUNCHERS)}")
    if request.launcher == "pytorch" and "RANK" not in os.environ:
        raise UsageError("--launcher pytorch: start with torchrun --nproc-per-node N -m wsss.cli.main train ...")
    cfg.launcher = request.launcher
    on_cpu = get_device() == "cpu"
    if request.amp:
        if on_cpu:
            raise UsageError("--amp needs an accelerator, and none is here; leave it out to train in float32")
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
    if on_cpu:
        # Synchronised statistics exist on accelerators only; with one process the two are the same thing.
        replace_sync_norm(cfg.model)
        cfg.env_cfg.dist_cfg = ConfigDict(backend="gloo")
        if request.launcher != "none":
            cfg.model_wrapper_cfg = ConfigDict(
                type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False
            )


def replace_sync_norm(settings: Any) -> None:
    """Turns every SyncBN in a model's settings into BN, in place."""
    if isinstance(settings, dict):
        if settings.get("type") == "SyncBN":
            settings["type"] = "BN"
        for value in settings.values():
            replace_sync_norm(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            replace_sync_norm(value)


def _check_batch(cfg: Config) -> None:
    size = cfg.train_dataloader.get("batch_size", 1)
    if size < 2 and cfg.model.decode_head.type in POOLING_HEADS and cfg.model.decode_head.get("norm_cfg"):
        raise UsageError(
            f"batch size {size}: {cfg.model.decode_head.type} normalises a pooled 1x1 map, which needs at least 2 "
            "images; --set train.train_dataloader.batch_size=2"
        )


def start_cpu_group(launcher: str) -> None:
    """Opens the process group of a torchrun start without accelerators, which mmengine cannot do itself."""
    if launcher == "pytorch" and get_device() == "cpu" and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")

"""Training of a tagger on the scores of a run: labels, batches, checkpoints that resume to the same bytes.

No true label is ever read: training ends after its epochs, and the last weights are the result.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagclip.config import TagCLIPConfig
from tagclip.devices import resolve_device
from tagclip.errors import ImageError, RunError, UsageError, first_line
from tagclip.images import decode_image
from tagclip.precision import exact_float32
from tagclip.settings import overlay
from wsss.distillation.distillation_config import DEMO, DistillationConfig
from wsss.distillation.image_classifiers import (
    HEADS,
    TaggerNetwork,
    load_backbone,
    require_activation_maps,
    set_prior,
)
from wsss.distillation.second_look import LookProgress, SecondLook, load_teacher_clip, require_rivals
from wsss.distillation.soft_labels import (
    CorrectedLabels,
    LabeledPhotos,
    align_labels,
    correct_class_bias,
    read_soft_labels,
)
from wsss.distillation.student import Student, TaggerCard, Teacher, read_card, save_student
from wsss.files.atomic import atomic_file
from wsss.files.concurrency import bounded_map
from wsss.files.digests import file_digest
from wsss.files.locks import folder_lock
from wsss.files.provenance import config_values, read_record, refuse_other, write_record
from wsss.files.run_files import read_manifest
from wsss.files.run_reader import RunReader

TAGGER_FILE, CHECKPOINT_FILE, RECORD_FILE, LOG_FILE = "tagger.pt", "checkpoint.pt", "tagger.json", "train_log.jsonl"
TIMES_FILE = "times.json"
SECONDS_BETWEEN_CHECKPOINTS = 60.0
PRIOR_MARGIN = 0.01  # from 0 and 1, of the mean label that a new last layer begins with
DEFAULT_BACKBONE = "resnet50"
Step = Callable[[int, str], object]
Watch = Callable[[int, int], contextlib.AbstractContextManager[Step]]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would do.

    Attributes:
        images, classes, epochs, steps: counts; steps of all epochs.
        backbone: the network. parameters: its number of them. side: of its input, pixels.
        pretrained: whether its last layer alone begins at random.
        device: that it trains on.
        finished: steps that an earlier call has done.
    """

    images: int
    classes: int
    epochs: int
    steps: int
    backbone: str
    parameters: int
    side: int
    pretrained: bool
    device: str
    finished: int

    def text(self) -> str:
        """One line for the screen."""
        weights = "" if self.pretrained else ", weights at random"
        done = f", {self.finished} done" if self.finished else ""
        return (
            f"{self.images} images, {self.classes} classes; {self.backbone} at {self.side} pixels "
            f"({self.parameters / 1e6:.1f} M parameters{weights}) on {self.device}; {self.epochs} epochs, "
            f"{self.steps} steps{done}"
        )


@dataclass(frozen=True)
class TrainedTagger:
    """What a training has made.

    Attributes:
        path: the tagger's file.
        images: that it was trained on. unreadable: of these, photos that could not be read and taught nothing.
        epochs, steps: of the whole training.
        divergence: mean over images and classes of the last epoch's KL divergence from its labels, in nats.
        seconds: of all calls. rate: images per second of training in this call, decoding included; 0 where nothing was
            left.
        resumed: whether an earlier call had begun it.
    """

    path: Path
    images: int
    unreadable: int
    epochs: int
    steps: int
    divergence: float
    seconds: float
    rate: float
    resumed: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "path": str(self.path)}


def _watch_nothing(total: int, done: int) -> contextlib.AbstractContextManager[Step]:
    return contextlib.nullcontext(lambda images, note: None)


class TaggerTraining:
    """A training on its way.

    Args:
        run: folder with scores.
        out: folder for `tagger.pt`, `tagger.json` (what it is made of), `train_log.jsonl`, `times.json` and, until it
            is done, `checkpoint.pt`.
        config: settings.
        weights: file of the backbone's weights; None: the demo's own, or none.
        image_root: where the photos are now; None: where they were when the run was made.
        device: None: the accelerator if there is one.
        workers: decoding threads.

    Raises:
        UsageError: no run with scores, an unknown backbone, weights or a device that are not there, or a second look
            without the maps or the classes that it needs.
        RunError: the run is not complete.
    """

    def __init__(
        self,
        run: Path | str,
        out: Path | str,
        config: DistillationConfig | None = None,
        *,
        weights: Path | str | None = None,
        image_root: Path | str | None = None,
        device: str | torch.device | None = None,
        workers: int = 2,
    ):
        self.reader, self.out = RunReader(run), Path(out)
        self.device, self.workers = resolve_device(device), max(1, workers)
        self.weights = None if weights is None else Path(weights)
        self.vocabulary = self.reader.vocabulary
        self.teacher, self._apply_exif = _teacher(self.reader)
        config = config or DistillationConfig()
        backbone = config.backbone or (DEMO if self.teacher.name == DEMO else DEFAULT_BACKBONE)
        self.config = replace(config, backbone=backbone)
        self.photos: LabeledPhotos = read_soft_labels(self.reader, image_root)
        self.architecture = TaggerNetwork(backbone, len(self.vocabulary), config.side)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            network = self.architecture.build()
        if self.config.second_look.enabled:
            require_rivals(self.vocabulary)
            require_activation_maps(network, backbone)
        self.pretrained = load_backbone(network, self.architecture, self.weights)
        mean = self._first.labels.mean(axis=0).clip(PRIOR_MARGIN, 1 - PRIOR_MARGIN)
        set_prior(network, torch.from_numpy(np.log(mean / (1 - mean))))
        card = TaggerCard(backbone, config.side, self.vocabulary.to_dict(), self.teacher)
        self.student = Student(network, card).to(self.device)
        self.unreadable: set[int] = set()
        self._look: SecondLook | None = None
        self._shuffled: tuple[int, np.ndarray] | None = None

    @property
    def plan(self) -> TrainingPlan:
        """What `execute` would do."""
        finished = 0
        if self._is_own_work():
            state = self._checkpoint()
            finished = self.steps if (self.out / TAGGER_FILE).is_file() else 0 if state is None else int(state["step"])
        parameters = sum(values.numel() for values in self.student.network.parameters())
        return TrainingPlan(
            len(self.photos.ids), len(self.vocabulary), self.config.epochs, self.steps, self.architecture.backbone,
            parameters, self.config.side, self.pretrained, str(self.device), finished,
        )  # fmt: skip

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; they differ by one image at most."""
        return -(-len(self.photos.ids) // self.config.batch_size)

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return self.config.epochs * self.steps_per_epoch

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the tagger's bytes depend on, JSON-ready."""
        settings = self.config.to_dict()
        if not self.config.second_look.enabled:
            del settings["second_look"]  # older trainings know no such setting
        return {
            "stage": "tagger",
            "tagger": settings,
            "run": {"labels": self.photos.digest, "images": len(self.photos.ids)},
            "vocabulary": self.vocabulary.to_dict(),
            "teacher": asdict(self.teacher),
            "weights": None if self.weights is None else file_digest(self.weights),
            "device": self.device.type,
        }

    def execute(
        self,
        *,
        overwrite: bool = False,
        watch: Watch = _watch_nothing,
        after_epoch: Callable[[int, Student], object] = lambda epoch, student: None,
    ) -> TrainedTagger:
        """Trains, or resumes a training, to the end.

        Args:
            overwrite: drop the training that is in the folder.
            watch: called with the number of images of all epochs and of those that were trained on before; its context
                gives a function that is called with the number of images since its last call and a remark.
            after_epoch: called with the number of finished epochs and the tagger in its evaluation mode, to look on;
                nothing that it does changes the training.

        Raises:
            UsageError: a folder with other files, or a second look whose CLIP is not there.
            RunError: another training's folder, a full disk, another process in the folder, or no photo that can be
                read.
        """
        with folder_lock(self.out, f"--out {self.out}"):
            self._look = self._second_look(overwrite)  # before anything is dropped: its CLIP may be missing
            self._claim(overwrite)
            finished = self.out / TAGGER_FILE
            if finished.is_file():
                (self.out / CHECKPOINT_FILE).unlink(missing_ok=True)
                training, times = read_card(finished).training, self.out / TIMES_FILE
                seconds = read_record(times, "delete it")["seconds"] if times.is_file() else 0.0
                return TrainedTagger(
                    finished, len(self.photos.ids), training["unreadable"], self.config.epochs, self.steps,
                    training["divergence"], seconds, 0.0, True,
                )  # fmt: skip
            state = self._checkpoint()
            with exact_float32():
                return self._train(state, watch, after_epoch)

    def _claim(self, overwrite: bool) -> None:
        record, wanted = self.out / RECORD_FILE, json.loads(json.dumps(self.identity))
        for path in self.out.iterdir():  # what a kill has left half written
            if re.fullmatch(r"\d+-\d+", path.name):
                path.unlink()
        if record.is_file() and not overwrite:
            refuse_other(f"--out {self.out}", "belongs to a training", read_record(record, "--overwrite"), wanted)
        elif not record.is_file():
            other = next((path.name for path in self.out.iterdir() if not path.name.startswith(".")), None)
            if other is not None:
                raise UsageError(f"--out {self.out}: holds other files ({other}); choose a folder that is new or empty")
        if overwrite:
            for name in (TAGGER_FILE, CHECKPOINT_FILE, LOG_FILE, TIMES_FILE):
                (self.out / name).unlink(missing_ok=True)
        write_record(record, wanted)

    def _is_own_work(self) -> bool:
        record = self.out / RECORD_FILE
        if not record.is_file():
            return False
        return read_record(record, "--overwrite") == json.loads(json.dumps(self.identity))

    def _checkpoint(self) -> dict[str, Any] | None:
        path = self.out / CHECKPOINT_FILE
        if not path.is_file():
            return None
        try:
            return dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # a damaged file raises whatever its parser runs into
            raise RunError(f"{path}: damaged ({first_line(error)}); start anew with --overwrite") from None

    def _train(
        self, state: dict[str, Any] | None, watch: Watch, after_epoch: Callable[[int, Student], object]
    ) -> TrainedTagger:
        config, network = self.config, self.student.network
        optimizer = torch.optim.AdamW(self._parameter_groups(), betas=(0.9, 0.999))
        labels, weights = self._first.labels, self._first.weights
        step, seconds, log, losses = 0, 0.0, [], [0.0, 0]
        looked = LookProgress.of(state)
        if state is not None:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            labels, step, seconds = state["labels"].numpy(), int(state["step"]), float(state["seconds"])
            log, losses = json.loads(state["log"]), [float(state["loss"]), int(state["counted"])]
            self.unreadable = set(state["unreadable"])
            logger.info("resuming at step %d of %d", step, self.steps)
        start = saved = time.monotonic()
        epochs, place = divmod(step, self.steps_per_epoch)
        done = epochs * len(self.photos.ids) + sum(len(self._batch(step - back)) for back in range(1, place + 1))
        trained = 0

        def save() -> None:
            nonlocal saved
            elapsed = seconds + time.monotonic() - start
            self._save(
                {
                    "network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                    "labels": torch.from_numpy(labels), "seconds": elapsed, "log": json.dumps(log), "loss": losses[0],
                    "counted": losses[1], "unreadable": sorted(self.unreadable), "look": asdict(looked),
                }
            )  # fmt: skip
            saved = time.monotonic()

        total = config.epochs * len(self.photos.ids)
        with watch(total, done) as tell, ThreadPoolExecutor(self.workers) as threads:
            batches = (self._batch(number) for number in range(step, self.steps))
            for rows, inputs in self._decoded(batches, threads, first=step):
                look = self._look
                if look is not None and step == config.second_look.after_epoch * self.steps_per_epoch:
                    labels = labels.copy()
                    self.student.eval()
                    side, ahead = look.config.side, look.config.chunk_size
                    decode = partial(self._decoded, threads=threads, first=None, side=side, ahead=ahead)
                    for said in look.over(self.student, decode, labels, self.photos.corrected, looked, config.seed):
                        tell(0, said)
                        log[-1]["second_look"] = looked.figures()
                        if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                            save()
                    self._look = look = None  # its CLIP leaves the memory
                    save()
                if len(inputs):
                    loss = self._step(step, optimizer, inputs, labels[rows], weights[rows])
                    losses = [losses[0] + loss * len(rows), losses[1] + len(rows)]
                size = len(self._batch(step))
                step += 1
                trained += size
                mean = losses[0] / max(losses[1], 1)
                tell(size, f"divergence {mean:.4f}")
                if step % self.steps_per_epoch == 0:
                    epoch = step // self.steps_per_epoch
                    row = {"epoch": epoch, "divergence": round(mean, 5), "lr": self._rate(step - 1)}
                    if not losses[1]:
                        photos = len(self.photos.ids)
                        raise RunError(f"--run {self.reader.root}: none of its {photos} photos can be read")
                    if config.align.updates_after(epoch, config.epochs):
                        moved = align_labels(labels, self._predictions(threads), config.align)
                        row["labels_moved"] = round(float(np.abs(moved - labels).mean()), 5)
                        labels = moved
                    log.append(row)
                    losses = [0.0, 0]
                    save()
                    self.student.eval()
                    after_epoch(epoch, self.student)
                elif time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    save()
        elapsed = time.monotonic() - start
        if self.unreadable:
            logger.warning("%d photos could not be read and taught nothing", len(self.unreadable))
        figures = {
            "settings": config.to_dict(), "labels": self.photos.digest, "run": self.reader.id,
            "images": len(self.photos.ids), "unreadable": len(self.unreadable), "divergence": log[-1]["divergence"],
            "pretrained": self.pretrained,
        }  # fmt: skip
        self._write_log(log)
        rate = trained / max(elapsed, 1e-9)
        self._finish(figures, seconds + elapsed, rate)
        return TrainedTagger(
            self.out / TAGGER_FILE, len(self.photos.ids), len(self.unreadable), config.epochs, self.steps,
            log[-1]["divergence"], seconds + elapsed, rate, state is not None,
        )  # fmt: skip

    def _finish(self, figures: dict[str, Any], seconds: float, rate: float) -> None:
        write_record(self.out / TIMES_FILE, {"seconds": round(seconds, 1), "images_per_second": round(rate, 2)})
        card = replace(self.student.card, training=figures)
        save_student(Student(self.student.network, card), self.out / TAGGER_FILE)
        (self.out / CHECKPOINT_FILE).unlink(missing_ok=True)

    @cached_property
    def _first(self) -> CorrectedLabels:
        """What the first epoch learns."""
        labels = self.photos.labels
        if self.config.bias.enabled:
            return correct_class_bias(labels, self.config.bias)
        return CorrectedLabels(labels, np.ones(len(labels), np.float32), np.ones(labels.shape[1], np.float32))

    def _second_look(self, overwrite: bool) -> SecondLook | None:
        """The second look, unless there is none or an earlier call has finished it."""
        if not self.config.second_look.enabled:
            return None
        if self._is_own_work() and not overwrite:
            done = (self.out / TAGGER_FILE).is_file()
            if done or LookProgress.of(self._checkpoint()).images == len(self.photos.ids):
                return None
        clip = load_teacher_clip(self.teacher, self.device, f"--run {self.reader.root}")
        bias = self.config.bias
        floor = bias.floor if bias.enabled else 0.0
        return SecondLook(clip, self.vocabulary, self.config.second_look, self._first, floor)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Last layer and the others, each with and without weight decay (vectors have none)."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, values in self.student.network.named_parameters():
            groups.setdefault((name.startswith(HEADS), values.ndim > 1), []).append(values)
        return [
            {
                "params": values, "weight_decay": self.config.weight_decay if matrices else 0.0,
                "factor": self.config.head_lr if head else 1.0, "lr": 0.0,
            }
            for (head, matrices), values in sorted(groups.items(), key=lambda item: item[0])
        ]  # fmt: skip

    def _rate(self, step: int) -> float:
        warmup = max(1, round(self.config.warmup * self.steps))
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.config.lr * min(1.0, (step + 1) / warmup) * fall

    def _batch(self, step: int) -> np.ndarray:
        """Images of a step, whatever was done before: rows of the labels."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return np.array_split(self._order(epoch), self.steps_per_epoch)[place]

    def _order(self, epoch: int) -> np.ndarray:
        if self._shuffled is None or self._shuffled[0] != epoch:
            order = np.random.default_rng([self.config.seed, 1, epoch]).permutation(len(self.photos.ids))
            self._shuffled = (epoch, order)
        return self._shuffled[1]

    def _step(
        self, step: int, optimizer: torch.optim.Optimizer, inputs: Tensor, labels: np.ndarray, weights: np.ndarray
    ) -> float:
        """One update; returns the mean divergence of the batch."""
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, 3, step]).generate_state(1)[0]))  # dropout
        for group in optimizer.param_groups:
            group["lr"] = self._rate(step) * group["factor"]
        self.student.train()
        if len(inputs) == 1:  # batch normalisation has no variance of one image
            self.student.eval()
        target = torch.from_numpy(labels).to(self.device)
        weight = torch.from_numpy(weights).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp and self.device.type != "cpu"):
            logits = self.student(inputs.to(self.device))
        divergence = binary_divergence(logits.float(), target).mean(dim=1)
        loss = (weight * divergence).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.network.parameters(), 1.0)
        optimizer.step()
        return float(divergence.detach().mean())

    def _decoded(
        self,
        batches: Iterable[np.ndarray],
        threads: ThreadPoolExecutor,
        *,
        first: int | None,
        side: int | None = None,
        ahead: int | None = None,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Rows of each batch that can be read, and their inputs (B, 3, side, side) in [0, 1].

        Args:
            first: number of the first batch's step, for random crops; None sees images whole.
            side: None: that of the network's input.
            ahead: number of images that are decoded at a time; None: two batches.
        """
        edge = side or self.config.side

        def read(item: tuple[int, int]) -> Tensor | None:
            number, row = item
            try:
                rgb = decode_image(self.photos.paths[row], apply_exif=self._apply_exif)
            except (ImageError, MemoryError):
                return None
            if first is not None:
                rgb = self._crop(rgb, [self.config.seed, 2, first + number, row])
            # A copy in any case: numpy calls a mirrored row of one pixel contiguous, and torch refuses its stride.
            values = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].float() / 255
            return F.interpolate(values, (edge, edge), mode="bilinear", antialias=True, align_corners=False)[0]

        early, here = tee(batches)
        items = ((number, int(row)) for number, rows in enumerate(early) for row in rows)
        found = bounded_map(threads, read, items, ahead or 2 * self.config.batch_size)
        for rows in here:
            kept, inputs = [], []
            for _ in rows:
                (_, row), values = next(found)
                if values is None:
                    self.unreadable.add(row)
                else:
                    kept.append(row)
                    inputs.append(values)
            stacked = torch.stack(inputs) if inputs else torch.zeros(0, 3, edge, edge)
            yield np.asarray(kept, np.int64), stacked

    def _crop(self, rgb: np.ndarray, seed: list[int]) -> np.ndarray:
        rng = np.random.default_rng(seed)
        height, width = rgb.shape[:2]
        sides = [max(1, round(side * rng.uniform(self.config.smallest_crop, 1))) for side in (height, width)]
        top, left = (int(rng.integers(0, side - cut + 1)) for side, cut in zip((height, width), sides, strict=True))
        part = rgb[top : top + sides[0], left : left + sides[1]]
        return part[:, ::-1] if self.config.flip and rng.random() < 0.5 else part

    @torch.no_grad()
    def _predictions(self, threads: ThreadPoolExecutor) -> np.ndarray:
        """Probabilities of whole images, (n, C); an image that cannot be read keeps its labels."""
        self.student.eval()
        predicted = self.photos.labels.copy()
        size = self.config.batch_size
        rows = [np.arange(start, min(start + size, len(predicted))) for start in range(0, len(predicted), size)]
        for kept, inputs in self._decoded(rows, threads, first=None):
            if len(inputs):
                predicted[kept] = self.student(inputs.to(self.device)).sigmoid().cpu().numpy()
        return predicted

    def _save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with atomic_file(self.out / CHECKPOINT_FILE, self.out, durable=True) as file:
            file.write(buffer.getvalue())

    def _write_log(self, log: list[dict[str, Any]]) -> None:
        with atomic_file(self.out / LOG_FILE, self.out) as file:
            file.write("".join(f"{json.dumps(row)}\n" for row in log).encode())


def binary_divergence(logits: Tensor, labels: Tensor) -> Tensor:
    """KL divergence of predicted from labelled presence of each class, in nats; its gradient is cross-entropy's.

    Args:
        logits: (B, C). labels: y, (B, C) in [0, 1].

    Returns:
        (B, C), not negative up to rounding.
    """
    entropy = -(torch.xlogy(labels, labels) + torch.xlogy(1 - labels, 1 - labels))
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none") - entropy


def _teacher(reader: RunReader) -> tuple[Teacher, bool]:
    """The CLIP of a run and whether its images were turned upright.

    Raises:
        UsageError: not a run folder, or one whose tags came from no CLIP of ours.
    """
    manifest = read_manifest(reader.root) or {}
    model = manifest.get("model")
    named = config_values(reader.root / "config.py").get("model")
    if not isinstance(model, dict) or not isinstance(named, dict) or not isinstance(named.get("name"), str):
        raise UsageError(f"--run {reader.root}: does not say which model it was made with")
    tagging = manifest.get("tagging")
    image = tagging.get("image") if isinstance(tagging, dict) else None
    if not isinstance(image, dict) or manifest.get("tags") is not None:
        raise UsageError(f"--run {reader.root}: its tags come from a file; give a run whose scores are a model's")
    settings = overlay(TagCLIPConfig().image, image, "tagging.image")
    patch = str(model.get("architecture", "")).partition("-")[0].removeprefix("patch")
    if not patch.isdigit():
        raise UsageError(f"--run {reader.root}: of a model without patches ({model.get('architecture')})")
    teacher = Teacher(
        named["name"], named.get("pretrained"), named.get("quick_gelu"), str(model.get("weights")), int(patch)
    )
    return teacher, settings.apply_exif

"""The demo's small ResNet-18, trained to name drawn objects that are not among VOC's classes.

DeepLab wants a backbone that has seen objects. For photos that is a ResNet from ImageNet; to drawn scenes that would be
a stranger. This one takes its place: half of ResNet-18's width, a classifier of the demo's other 100 objects. It has
seen no class of VOC, no mask, and nothing of the held-out style.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmseg.models.backbones import ResNetV1c
from torch import Tensor, nn
from torch.utils.data import Dataset

from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.demo.sprites import HELD_OUT_STYLE, TRAINING_STYLES, DemoNames, demo_names
from wsss.segmentation.bases import DEMO_BACKBONE
from wsss.segmentation.curves import read_scalars

CHANNELS = 32  # of stem and first stage: half of ResNet-18's
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # mmseg's, of ImageNet, for RGB in 0..255


@dataclass(frozen=True)
class BackboneTraining:
    """Settings of the training.

    Attributes:
        out: work folder; a training that is found there is resumed.
        steps: iterations. batch: pictures each.
        lr: peak learning rate of SGD with momentum: linear warm-up over `warmup` steps, then cosine to 0.
        weight_decay: of all parameters.
        side: of the pictures, pixels. object_side: longer side of an object, pixels, as in scenes at half their size.
        seed: of weights and pictures. threads: of torch. workers: processes that draw pictures.
        eval_every: steps between validations. eval_pictures: how many pictures of the held-out style.
    """

    out: Path
    steps: int = 3000
    batch: int = 64
    lr: float = 0.1
    warmup: int = 200
    weight_decay: float = 5e-4
    side: int = 96
    object_side: tuple[int, int] = (28, 110)
    seed: int = 0
    threads: int = 2
    workers: int = 1
    eval_every: int = 500
    eval_pictures: int = 400


def other_objects() -> DemoNames:
    """What the demo can draw besides VOC's classes."""
    names = demo_names()
    return DemoNames(tuple(item for item in names.objects if not item.voc), names.backgrounds)


class ObjectPictures(Dataset):
    """Picture i as `inputs`, (3, S, S) uint8 RGB, and `target`, (K,) float32: each name's share of the visible area.

    Args:
        config: look of the pictures. seed: of the pictures. count: how many there are.
    """

    def __init__(self, config: SceneConfig, seed: int, count: int):
        names = other_objects()
        self.names = tuple(item.name for item in names.objects)
        self.renderer, self.count = SceneRenderer(config, seed, names), count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        scene = self.renderer(index)
        areas = torch.zeros(len(self.names))
        for name, area in zip(scene.objects, scene.areas, strict=True):
            areas[self.names.index(name)] = area
        image = torch.from_numpy(scene.image.transpose(2, 0, 1).copy())
        return {"inputs": image, "target": areas / areas.sum().clamp(min=1)}


class ObjectClassifier(BaseModel):
    """Backbone, mean over positions, one linear layer.

    Args:
        classes: number of names.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.backbone = ResNetV1c(
            depth=18, base_channels=CHANNELS, stem_channels=CHANNELS, norm_cfg={"type": "BN"}, norm_eval=False
        )
        self.classifier = nn.Linear(8 * CHANNELS, classes)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, inputs: Tensor, target: Tensor | None = None, mode: str = "tensor") -> Any:
        """Logits (B, K); in mode "loss" their cross-entropy with the area shares, in "predict" which are right.

        Args:
            inputs: (B, 3, S, S) RGB in 0..255. target: (B, K), rows sum to 1.
        """
        images = (inputs.float() - self.mean) / self.std
        features = self.backbone(images.contiguous(memory_format=torch.channels_last))[-1]
        logits = self.classifier(features.mean((2, 3)))
        if target is None or mode == "tensor":
            return logits
        if mode == "loss":
            return {"loss": nn.functional.cross_entropy(logits, target)}
        return (logits.argmax(1) == target.argmax(1)).tolist()


class Accuracy(BaseMetric):
    """Share of the pictures whose largest logit is the right name, per cent."""

    def process(self, data_batch: Any, data_samples: Sequence[bool]) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list[bool]) -> dict[str, float]:
        return {"accuracy": 100 * sum(results) / len(results)}


def train_backbone(settings: BackboneTraining) -> Path:
    """Trains the classifier, or resumes its training; returns the file with the backbone's weights.

    Writes `demo_resnet18.pth` (float16 state dict of the backbone) and `train_log.jsonl` beside mmengine's own files.
    """
    torch.set_num_threads(settings.threads)
    shown: dict[str, Any] = {
        "side": (settings.side,) * 2, "square": True, "object_side": settings.object_side, "voc_share": 0.0,
    }  # fmt: skip
    seen = SceneConfig(styles=TRAINING_STYLES, objects=(1, 2), bleed=True, augment=True, rotation=20.0, **shown)
    unseen = SceneConfig(styles=(HELD_OUT_STYLE,), objects=(1, 1), **shown)
    pictures = ObjectPictures(seen, settings.seed, settings.steps * settings.batch)
    held_out = ObjectPictures(unseen, settings.seed + 1, settings.eval_pictures)
    torch.manual_seed(settings.seed)
    steps, warmup = settings.steps, min(settings.warmup, settings.steps // 2)
    runner = Runner(
        model=ObjectClassifier(len(pictures.names)).to(memory_format=torch.channels_last),
        work_dir=str(settings.out),
        experiment_name="demo_backbone",
        train_dataloader=_loader(pictures, settings, shuffle=True),
        val_dataloader=_loader(held_out, settings, shuffle=False),
        train_cfg={"by_epoch": False, "max_iters": steps, "val_interval": settings.eval_every},
        val_cfg={},
        val_evaluator=Evaluator(Accuracy()),
        optim_wrapper={
            "optimizer": {
                "type": "SGD", "lr": settings.lr, "momentum": 0.9, "nesterov": True,
                "weight_decay": settings.weight_decay,
            }
        },
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 0.01, "begin": 0, "end": warmup, "by_epoch": False},
            {"type": "CosineAnnealingLR", "T_max": steps - warmup, "begin": warmup, "end": steps, "by_epoch": False},
        ],
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": 50, "log_metric_by_epoch": False},
            "checkpoint": {
                "type": "CheckpointHook", "by_epoch": False, "interval": settings.eval_every, "max_keep_ckpts": 1
            },
        },
        randomness={"seed": settings.seed},
        resume=True,
    )  # fmt: skip
    model = runner.train()
    weights = model.backbone.state_dict()
    state = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    path = settings.out / Path(DEMO_BACKBONE).name
    torch.save(state, path)
    rows = [json.dumps({key: _short(value) for key, value in row.items()}) for row in read_scalars(settings.out)]
    (settings.out / "train_log.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def _loader(pictures: ObjectPictures, settings: BackboneTraining, *, shuffle: bool) -> dict[str, Any]:
    workers = settings.workers if shuffle else 0
    return {
        "dataset": pictures,
        "batch_size": settings.batch,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "collate_fn": {"type": "default_collate"},
        "sampler": {"type": "InfiniteSampler" if shuffle else "DefaultSampler", "shuffle": False},
    }


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) and math.isfinite(value) else value

"""Training of the embedded demo model on rendered emoji scenes, from their image-level names alone.

What the model learns from them is in `tagclip.demo.losses`.
"""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tagclip.demo.backgrounds import KINDS
from tagclip.demo.losses import losses
from tagclip.demo.model import DemoArchitecture, DemoCLIP
from tagclip.demo.scenes import Scene, SceneConfig, SceneRenderer
from tagclip.demo.sprites import HELD_OUT_STYLE, demo_names
from tagclip.errors import UsageError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EXTRA_TEMPLATES = (
    "there is a {} in the scene.", "there is the {} in the scene.", "this is a {} in the scene.",
    "this is the {} in the scene.", "this is one {} in the scene.", "a clean origami {}.", "a clean origami {}.", "{}",
)  # fmt: skip


EVALUATION_TEMPLATES = ("a photo of a {}.", "this is a {} in the scene.", "a {}.")
EVALUATION_BACKGROUND = (
    "tree", "building", "keyboard", "helmet", "cloud", "house", "mountain", "rock", "sign", "railway", *KINDS,
)  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run.

    Attributes:
        out: folder for the checkpoint, the weights and the log; a run found there is resumed.
        start: weights of an earlier run to continue from, with `scene_curriculum` instead of `curriculum`.
        steps: optimiser steps in all. lr: peak learning rate, linear warm-up, cosine to 1 % of it. The matrices of
            the blocks are trained by Muon (which needs about two thirds of AdamW's steps here), the rest by AdamW.
        batch_scale: multiplies the batch of every phase of `curriculum`.
        seed: of the weights, the scenes and the captions. threads: of torch. workers: processes that render.
        cam_objects: objects a scene whose Grad-CAM is supervised; each costs two backward passes of the last block.
        bf16: bfloat16 autocast. eval_every, eval_scenes: how often and on how much the log reports accuracy.
    """

    out: Path
    start: Path | None = None
    steps: int = 5200
    lr: float = 1e-3
    batch_scale: float = 1.0
    seed: int = 0
    threads: int = 2
    workers: int = 1
    bf16: bool = True
    eval_every: int = 400
    eval_scenes: int = 50
    overwrite: bool = False
    warmup: int = 200
    weight_decay: float = 0.05
    averaging: float = 0.999
    cam_objects: int = 0


@dataclass(frozen=True)
class Phase:
    """One stage of the curriculum.

    Attributes:
        share: of the steps. batch: scenes a step. scene: their look. voc_share: of objects from VOC's classes.
    """

    share: float
    batch: int
    scene: SceneConfig
    voc_share: float


def _scene(side: int, objects: tuple[int, int], object_side: tuple[int, int], *, bleed: bool = False) -> SceneConfig:
    return SceneConfig(
        side=(side, side), square=True, objects=objects, object_side=object_side, augment=True, bleed=bleed,
        horizon_share=0.2 if side > 96 else 0.1, max_hidden=0.35, rotation=18,
    )  # fmt: skip


def curriculum(scale: float) -> list[Phase]:
    """Close-ups of single objects first, which teach many patches from one name, then whole scenes.

    Objects have the size that they have in the demo's scenes from the start, so small pictures show parts of them.
    """
    return [
        Phase(0.45, round(64 * scale), _scene(96, (1, 1), (50, 170), bleed=True), 0.8),
        Phase(0.20, round(44 * scale), _scene(128, (1, 2), (60, 180), bleed=True), 0.8),
        Phase(0.20, round(24 * scale), _scene(192, (1, 3), (80, 190)), 0.85),
        Phase(0.15, round(16 * scale), _scene(272, (1, 4), (80, 200)), 0.85),
    ]


def scene_curriculum(scale: float) -> list[Phase]:
    """Whole scenes only, for a model that `curriculum` has trained: its learning rate had fallen when they came."""
    return [Phase(1.0, round(16 * scale), _scene(272, (1, 4), (80, 200)), 0.85)]


class SceneStream(Dataset):
    """Scene number i as (uint8 image (3, S, S), areas of the objects (K,) float32 pixels, backgrounds (K,) bool)."""

    def __init__(self, phase: Phase, seed: int, first: int, count: int):
        config = SceneConfig(**{**vars(phase.scene), "voc_share": phase.voc_share})
        self.renderer, self.first, self.count = SceneRenderer(config, seed), first, count
        self.index = {item.name: i for i, item in enumerate(demo_names().objects)}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scene = self.renderer(self.first + i)
        areas = torch.zeros(len(self.index) + len(KINDS))
        for name, area in zip(scene.objects, scene.areas, strict=True):
            areas[self.index[name]] = area
        background = torch.zeros(len(areas), dtype=torch.bool)
        for kind in scene.backgrounds:
            background[len(self.index) + KINDS.index(kind)] = True
        return torch.from_numpy(scene.image.transpose(2, 0, 1).copy()), areas, background


class Captions:
    """Draws the words and the template of a step: all names as prompts, tokenised once."""

    def __init__(self, seed: int):
        names = demo_names()
        self.words = [item.text for item in names.objects] + [names.backgrounds[kind] for kind in KINDS]
        self.templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES] + list(EXTRA_TEMPLATES)
        self.n_objects = len(names.objects)
        self.seed = seed
        self.tokenizer = open_clip.get_tokenizer("ViT-B-16")
        self.cache: dict[str, torch.Tensor] = {}

    def tokens(self, prompts: list[str]) -> torch.Tensor:
        for prompt in prompts:
            if prompt not in self.cache:
                self.cache[prompt] = self.tokenizer([prompt])[0]
        return torch.stack([self.cache[prompt] for prompt in prompts])

    def all_rows(self) -> torch.Tensor:
        """Every token id that a caption can hold."""
        prompts = [t.format(w) for t in self.templates for w in ("cat", "background")]
        prompts += [w for words in self.words for w in words] + [f"a {w}." for words in self.words for w in words]
        return torch.unique(self.tokenizer(prompts))

    def draw(self, step: int) -> torch.Tensor:
        """Prompts of a step, (K, 77): the first word of a name most of the time, else one of the others."""
        rng = np.random.default_rng([self.seed, 1, step])
        rare = rng.choice(len(EXTRA_TEMPLATES)) - len(EXTRA_TEMPLATES)
        template = self.templates[rare if rng.random() < 0.4 else rng.integers(len(self.templates))]
        chosen = []
        for i, words in enumerate(self.words):
            plain = rng.random() < (0.6 if i < self.n_objects else 0.35)
            chosen.append(words[0] if plain else words[int(rng.integers(len(words)))])
        if rng.random() < 0.2:
            chosen[self.n_objects + int(rng.integers(len(KINDS)))] = "background"
        return self.tokens([template.format(word) for word in chosen])


def normalise(images: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


@torch.no_grad()
def evaluate(model: DemoCLIP, captions: Captions, scenes: list[Scene]) -> dict[str, float]:
    """mAP of [CLS] and of the best patch, and the patch accuracy on objects, over rendered scenes."""
    names = demo_names()
    voc = [i for i, item in enumerate(names.objects) if item.voc]
    others = [i for i, words in enumerate(captions.words) if words[0] in EVALUATION_BACKGROUND]
    words = [captions.words[i][0] for i in voc + others]
    rows = (model.encode_text(captions.tokens([t.format(word) for word in words])) for t in EVALUATION_TEMPLATES)
    text, scale = F.normalize(reduce(torch.add, rows), dim=-1), model.logit_scale.exp()
    shown, by_cls, by_patch, hits, total = [], [], [], 0, 0
    for scene in scenes:
        image = normalise(torch.from_numpy(scene.image.transpose(2, 0, 1).copy()))[None]
        cls, patches, _, _ = model.visual(image)
        shown.append([names.objects[i].name in scene.objects for i in voc])
        by_cls.append((scale * cls[0] @ text.T).softmax(-1)[: len(voc)].numpy())
        p = (scale * patches[0] @ text.T).softmax(-1)[:, : len(voc)]
        by_patch.append(p.max(0).values.numpy())
        g = scene.mask.shape[0] // 16
        centres = scene.mask[8::16, 8::16][:g, : scene.mask.shape[1] // 16].reshape(-1)
        best = (patches[0] @ text.T).argmax(-1).numpy()
        for k, name in enumerate(scene.objects):
            target = [names.objects[i].name for i in voc].index(name)
            hits, total = hits + int((best[centres == k + 1] == target).sum()), total + int((centres == k + 1).sum())
    truth = np.asarray(shown)

    def mean_ap(scores: list[np.ndarray]) -> float:
        stacked, present = np.asarray(scores), [c for c in range(len(voc)) if truth[:, c].any()]
        return 100 * float(np.mean([average_precision_score(truth[:, c], stacked[:, c]) for c in present]))

    return {"mAP cls": mean_ap(by_cls), "mAP patch": mean_ap(by_patch), "patch acc": 100 * hits / max(total, 1)}


class Training:
    """One training run: model, its running average, optimisers, log; resumes from its own checkpoint."""

    STATEFUL = ("model", "average", "muon", "adam")

    def __init__(self, config: TrainingConfig):
        if not hasattr(torch.optim, "Muon"):
            raise UsageError(f"torch {torch.__version__}: the demo's training needs 2.9 or later (torch.optim.Muon)")
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        self.config = config
        self.captions = Captions(config.seed)
        self.model = DemoCLIP(DemoArchitecture(), self.captions.all_rows())
        if config.start:
            self.model.load_stored(load_file(config.start))
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        parameters = dict(self.model.named_parameters())
        hidden = {name: p for name, p in parameters.items() if p.ndim == 2 and "resblocks" in name}
        groups: list[dict[str, Any]] = [
            {"params": [p for name, p in parameters.items() if name not in hidden and p.ndim >= 2]},
            {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.muon = torch.optim.Muon(
            list(hidden.values()), lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.adam = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)
        self.step = 0
        self.log: list[dict[str, Any]] = []
        config.out.mkdir(parents=True, exist_ok=True)
        self.checkpoint = config.out / "training.pt"
        if self.checkpoint.exists() and not config.overwrite:
            self._resume()
        held_out = SceneRenderer(SceneConfig(side=(320, 320), square=True, styles=(HELD_OUT_STYLE,)), seed=99)
        known = SceneRenderer(SceneConfig(side=(320, 320), square=True), seed=98)
        self.tests = {
            "held-out style": [held_out(i) for i in range(config.eval_scenes)],
            "training styles": [known(i) for i in range(config.eval_scenes)],
        }

    def run(self) -> None:
        """Trains to the end and writes ``demo_clip.safetensors`` and ``train_log.jsonl``."""
        phases, start, first = curriculum(self.config.batch_scale), 0, 0
        if self.config.start:  # numbered on, so that the scenes are new ones
            phases, first = scene_curriculum(self.config.batch_scale), len(phases)
        for number, phase in enumerate(phases, first):
            end = start + round(phase.share * self.config.steps)
            if self.step < end:
                self._run_phase(number, phase, start, end)
            start = end
        lines = "".join(json.dumps(row) + "\n" for row in self.log)
        (self.config.out / "train_log.jsonl").write_text(lines, encoding="utf-8")

    def _run_phase(self, number: int, phase: Phase, start: int, end: int) -> None:
        config, began, first = self.config, time.time(), self.step
        stream = SceneStream(phase, config.seed + number, (first - start) * phase.batch, (end - first) * phase.batch)
        prefetch = 4 if config.workers else None
        for batch in DataLoader(stream, phase.batch, num_workers=config.workers, prefetch_factor=prefetch):
            parts = self._update(*batch)
            if self.step % 50 == 0:
                row = {"step": self.step, "phase": number, "lr": round(self.adam.param_groups[0]["lr"], 6)}
                row |= {"s/step": round((time.time() - began) / (self.step - first), 3)}
                row |= {"scale": round(self.model.logit_scale.exp().item(), 1)}
                self._report(row | {name: round(value.item(), 3) for name, value in parts.items()})
            if self.step % config.eval_every == 0 or self.step == end:
                for style, scenes in self.tests.items():
                    figures = evaluate(self.average, self.captions, scenes)
                    self._report({"step": self.step, "scenes": style, **{k: round(v, 1) for k, v in figures.items()}})
                self._save()

    def _update(self, images: Tensor, areas: Tensor, background: Tensor) -> dict[str, Tensor]:
        config, total = self.config, self.config.steps
        warmup = max(1, min(config.warmup, total // 10))
        fall = 0.5 * (1 + math.cos(math.pi * self.step / total)) * 0.99 + 0.01
        for group in (*self.muon.param_groups, *self.adam.param_groups):
            group["lr"] = float(config.lr * min(1, (self.step + 1) / warmup) * fall)
        rng = np.random.default_rng([config.seed, 2, self.step])
        arch = self.model.arch
        spare = arch.grid - images.shape[-1] // arch.patch
        offset = tuple(int(v) for v in rng.integers(0, spare + 1, 2)) if spare >= 0 else None
        tokens = self.captions.draw(self.step)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bf16):
            parts = losses(self.model, normalise(images), areas, background, tokens, offset, config.cam_objects)
        self.model.zero_grad(set_to_none=True)
        reduce(torch.add, parts.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.muon.step()
        self.adam.step()
        self.step += 1
        keep = min(config.averaging, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)
        return parts

    def _report(self, row: dict) -> None:
        self.log.append(row)
        print(json.dumps(row), flush=True)

    def _save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in self.STATEFUL}
        partial = self.checkpoint.with_suffix(".part")
        torch.save({**state, "step": self.step, "log": json.dumps(self.log)}, partial)
        partial.replace(self.checkpoint)
        # The activation cannot be read off the weights, so the file says it.
        state, path = self.average.stored_state(), self.config.out / "demo_clip.safetensors"
        save_file(state, path, metadata={"quick_gelu": "true"})

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        for name in self.STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.step, self.log = state["step"], json.loads(state["log"])
        print(f"resumed at step {self.step}", flush=True)

"""A second look at crops around a tagger's own class activation maps, whose answers by CLIP renew the labels (CCD).

The later pseudo labels of CCD (arXiv 2503.16873), with these choices:

- The answer for a crop is a softmax over the classes; for each class, the maximum over an image's crops counts. If the
  correction of bias is on, its floor and its bias correct these answers as they did the first labels. The bias is that
  of the run's scores, which stand here where CCD has CLIP's answers for whole images.
- The old label has been corrected already: it takes part in the maximum as it is, and is not divided by the bias again.
- The threshold is searched on one sample, drawn once, and is the lowest one that stays below the interval's upper end.
  With few classes that is the first one: then most classes of each image are looked at.
- A map without a peak (constant, as of one place alone) points nowhere: its crop is the whole image.
- The published list of prompts is VOC's, whatever the data set; here it is the vocabulary's.
- What a person has said of an image stays as it is.

CCD's head, which scales positive activations, and its loss between two views of an image are not built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.boxes import scale_maps, tight_boxes
from tagclip.clip import AttentionRequest, FrozenCLIP, build_text_classifier, load_clip
from tagclip.dmar import coarse_scores
from tagclip.errors import UsageError, WeightsError
from tagclip.images import target_size
from tagclip.precision import exact_float32
from tagclip.vocabulary import Vocabulary
from wsss.distillation.distillation_config import SecondLookConfig
from wsss.distillation.soft_labels import CorrectedLabels
from wsss.distillation.student import Student, Teacher

# Rows of the images -> for each batch the rows that can be read, and their squares (B, 3, side, side) in [0, 1].
Decode = Callable[[Iterable[np.ndarray]], Iterator[tuple[np.ndarray, Tensor]]]


@dataclass
class LookProgress:
    """How far a second look has come; part of a checkpoint.

    Attributes:
        threshold: of the tagger's predictions; 0 before it is found.
        images: so many of the first ones have their new labels. crops: that CLIP has answered for.
        change: sum over these images of how far their labels have moved, mean over the classes.
    """

    threshold: float = 0.0
    images: int = 0
    crops: int = 0
    change: float = 0.0

    @classmethod
    def of(cls, state: Mapping[str, Any] | None) -> LookProgress:
        """That of a checkpoint; None: nothing is done."""
        return cls() if state is None else cls(**state["look"])

    def figures(self) -> dict[str, float]:
        """What the log says of a look that is done."""
        moved = self.change / max(self.images, 1)
        return {"threshold": round(self.threshold, 5), "crops": self.crops, "labels_moved": round(moved, 5)}


class SecondLook:
    """CLIP's answers for what a tagger points at.

    Args:
        clip: the one of the run. vocabulary: the classes, more than one.
        config: settings.
        first: the correction of the first labels. floor: of that correction, 0 where there was none.
    """

    def __init__(
        self, clip: FrozenCLIP, vocabulary: Vocabulary, config: SecondLookConfig, first: CorrectedLabels, floor: float
    ):
        self.clip, self.config, self.first, self.floor = clip, config, first, floor
        self.classifier = build_text_classifier(clip, vocabulary.prompts, (config.template,))

    @torch.no_grad()
    def over(
        self,
        student: Student,
        decode: Decode,
        labels: np.ndarray,
        corrected: np.ndarray,
        looked: LookProgress,
        seed: int,
    ) -> Iterator[str]:
        """Renews the labels of all images in place, in their order, from where `looked` says that it has stopped.

        Args:
            student: in its evaluation mode.
            labels: (n, C). corrected: (n, C) bool, those that a person has set, which stay.
            seed: of the sample for the threshold.

        Yields:
            A remark after every few images, when a checkpoint may hold `looked` and the labels.
        """
        count, size = len(labels), self.config.chunk_size
        if not looked.images:
            drawn = np.random.default_rng([seed, 4]).permutation(count)[: self.config.sample]
            batches = np.split(drawn, range(size, len(drawn), size))
            sample = [self._predicted(student, squares) for _, squares in decode(batches)]
            looked.threshold = search_threshold(np.concatenate(sample), self.config)
        batches = [np.arange(start, min(start + size, count)) for start in range(looked.images, count, size)]
        for batch, (rows, squares) in zip(batches, decode(batches), strict=True):
            if len(rows):
                before = labels[rows]
                renewed, crops = self.renew(student, squares, before, looked.threshold)
                labels[rows] = np.where(corrected[rows], before, renewed)
                looked.change += float(np.abs(labels[rows] - before).mean(axis=1).sum())
                looked.crops += crops
            looked.images += len(batch)
            yield f"second look {looked.images} of {count}"

    @torch.no_grad()
    def renew(self, student: Student, squares: Tensor, labels: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
        """New labels of a few images.

        Args:
            student: in its evaluation mode.
            squares: (B, 3, side, side) in [0, 1]. labels: theirs, (B, C).

        Returns:
            (B, C) float32 in [0, 1], and the number of crops.
        """
        squares = squares.to(student.device)
        logits, maps = student.with_maps(squares)
        owners, classes = (logits.sigmoid().double() >= threshold).nonzero(as_tuple=True)
        boxes = peak_boxes(maps[owners, classes], self.config)
        answers = self.answers(squares, owners, boxes)
        seen = torch.zeros_like(logits)
        seen.scatter_reduce_(0, owners[:, None].expand_as(answers), answers.to(seen.device), "amax")
        found = np.bincount(owners.cpu().numpy(), minlength=len(labels)) > 0
        return renew_labels(labels, seen.cpu().numpy(), found, self.first.bias, self.floor, self.config), len(owners)

    def _predicted(self, student: Student, squares: Tensor) -> np.ndarray:
        if not len(squares):  # no photo of the batch can be read
            return np.zeros((0, len(self.classifier)), np.float32)
        return student(squares.to(student.device)).sigmoid().cpu().numpy()

    @torch.no_grad()
    @exact_float32()
    def answers(self, squares: Tensor, owners: Tensor, boxes: Tensor) -> Tensor:
        """Softmax over the classes of CLIP's [CLS] feature of each crop.

        Args:
            squares: (B, 3, side, side) in [0, 1]. owners: image of each crop, (M,).
            boxes: (M, 4) x0, y0, x1, y1, ends exclusive.

        Returns:
            (M, C) float32 on the CLIP's device. Crops of one size share forward passes.
        """
        clip, crops = self.clip, list(zip(owners.tolist(), boxes.tolist(), strict=True))
        sizes = [crop_size(box, self.config.side, clip.patch_size) for _, box in crops]
        mean, std = (torch.tensor(values, device=squares.device).view(3, 1, 1) for values in (clip.mean, clip.std))
        found = torch.zeros(len(crops), len(self.classifier), device=clip.device)
        for size, members in groupby(sorted(range(len(crops)), key=sizes.__getitem__), key=sizes.__getitem__):
            for chunk in torch.tensor(list(members)).split(self.config.chunk_size):
                parts = []
                for owner, (x0, y0, x1, y1) in (crops[place] for place in chunk.tolist()):
                    part = squares[owner : owner + 1, :, y0:y1, x0:x1]
                    parts.append(F.interpolate(part, size, mode="bilinear", align_corners=False))
                tokens = clip.last_block(clip.trunk((torch.cat(parts) - mean) / std, AttentionRequest()).tokens)
                features = F.normalize(clip.project(tokens[:, :1]).float(), dim=-1)
                found[chunk.to(clip.device)] = coarse_scores(features, self.classifier, clip.logit_scale)[:, 0]
        return found


def load_teacher_clip(teacher: Teacher, device: torch.device, place: str) -> FrozenCLIP:
    """The CLIP that a run was made with, in float32 whatever the run computed in.

    Args:
        place: the run, as the user named it.

    Raises:
        WeightsError: its weights are not there, or are others now.
    """
    try:
        clip = load_clip(teacher.name, teacher.pretrained, device=device, quick_gelu=teacher.quick_gelu)
    except WeightsError as error:
        raise WeightsError(f"--second-look: needs the CLIP that {place} was made with: {error}") from None
    if clip.weights_digest != teacher.weights:
        raise WeightsError(
            f"--second-look: the scores of {place} are not those of {clip.name} as it is now (weights "
            f"{teacher.weights[:12]} there, {clip.weights_digest[:12]} here); give a run of this CLIP"
        )
    return clip


def require_rivals(vocabulary: Vocabulary) -> None:
    """Makes sure that there is something to compare: a softmax over one class is 1 whatever the image shows.

    Raises:
        UsageError: a single class.
    """
    if len(vocabulary) < 2:
        raise UsageError("--second-look: compares classes with each other and there is one; leave the option out")


def search_threshold(predicted: np.ndarray, config: SecondLookConfig) -> float:
    """The lowest threshold with which an image has fewer than bound + margin classes in the mean.

    Args:
        predicted: of a sample, (n, C) in [0, 1].

    Returns:
        The last threshold below 1 where none does; the first one for an empty sample.
    """
    count = int(np.ceil((1 - config.first_threshold) / config.threshold_step))
    thresholds = config.first_threshold + config.threshold_step * np.arange(count)
    values = np.sort(predicted.astype(np.float64), axis=None)
    above = (values.size - np.searchsorted(values, thresholds, side="left")) / max(len(predicted), 1)
    few = np.flatnonzero(above < config.bound + config.margin)
    return float(thresholds[few[0] if len(few) else -1])


def peak_boxes(maps: Tensor, config: SecondLookConfig) -> Tensor:
    """Boxes of crops in a square of `config.side` pixels: around the peak of each map, larger by the offset.

    Args:
        maps: (M, h, w).

    Returns:
        (M, 4) int64 x0, y0, x1, y1, ends exclusive, inside the square, of at least one pixel; the whole square for a
        constant map.
    """
    side = config.side
    boxes = torch.empty(len(maps), 4, dtype=torch.int64, device=maps.device)
    grow = torch.tensor([-1, -1, 1, 1], device=maps.device) * config.offset
    for place, group in zip(boxes.split(config.chunk_size), maps.split(config.chunk_size), strict=True):
        enlarged = F.interpolate(group[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
        above = scale_maps(enlarged) > config.peak
        inner = _reading_order_boxes(above) if config.reading_order_box else tight_boxes(above)
        grown = (inner + grow).clamp(0, side)
        nowhere = ~above.flatten(1).any(dim=1)
        place.copy_(torch.where(nowhere[:, None], torch.tensor([0, 0, side, side], device=maps.device), grown))
    return boxes


def _reading_order_boxes(masks: Tensor) -> Tensor:
    """Box from the first to the last cell of each mask (M, h, w) in reading order, its end left out as published."""
    flat, width = masks.flatten(1).int(), masks.shape[2]
    first = flat.argmax(dim=1)
    last = flat.shape[1] - 1 - flat.flip(1).argmax(dim=1)
    corners = torch.stack([first % width, first // width, last % width, last // width], dim=1)
    start = torch.minimum(corners[:, :2], corners[:, 2:])
    end = torch.maximum(torch.maximum(corners[:, :2], corners[:, 2:]), start + 1)
    return torch.cat([start, end], dim=1)


def crop_size(box: list[int], side: int, patch_size: int) -> tuple[int, int]:
    """Height and width that CLIP sees a crop at: its longer side is `side`, both rounded up to whole patches."""
    x0, y0, x1, y1 = box
    scale = side / max(x1 - x0, y1 - y0)
    size = target_size(max(1, round((y1 - y0) * scale)), max(1, round((x1 - x0) * scale)), patch_size)
    return size.height, size.width


def renew_labels(
    labels: np.ndarray, seen: np.ndarray, found: np.ndarray, bias: np.ndarray, floor: float, config: SecondLookConfig
) -> np.ndarray:
    """Old labels mixed with what was seen in crops, y <- clip(r y + (1 - r) max(s, floor) / b, 0, 1).

    Args:
        labels: y, (n, C) in [0, 1]. seen: s, maximum over an image's crops, (n, C); 0 without crops.
        found: whether an image has crops, (n,) bool. bias: b, (C,).

    Returns:
        (n, C) float32 in [0, 1].
    """
    new = np.maximum(seen, floor) / bias
    if config.with_label:
        new = np.maximum(new, labels)
    mixed = np.clip(config.ratio * labels + (1 - config.ratio) * new, 0, 1)
    return np.where(found[:, None], mixed, labels).astype(np.float32)

"""Soft labels: read from a run, corrected for the bias of classes (CCD), moved along the gradient (CDUL)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagclip.errors import UsageError
from tagclip.stored_files import FilePlace
from tagclip.tag_files import TagRecord
from wsss.distillation.distillation_config import AlignmentConfig, BiasConfig
from wsss.files.photos import PhotoLocator
from wsss.files.run_reader import RunReader


@dataclass(frozen=True)
class LabeledPhotos:
    """What a run says of its images.

    Attributes:
        ids: of the images. paths: of their photos.
        labels: scores in [0, 1], (n, C) float32; 1 and 0 where a person has added or removed a tag.
        corrected: (n, C) bool, where a person has.
        digest: sha256 (hex) of all of these but the paths.
    """

    ids: tuple[str, ...]
    paths: tuple[FilePlace, ...]
    labels: np.ndarray
    corrected: np.ndarray
    digest: str


def read_soft_labels(run: RunReader, image_root: Path | str | None = None) -> LabeledPhotos:
    """The scores of a run's images; rejected images are left out.

    Args:
        image_root: where the photos are now; None: where they were when the run was made.

    Raises:
        UsageError: no run, no images, scores that were not stored, or photos that are not there.
        RunError: the run is not complete.
    """
    records = list(run.records())
    if not records:
        raise UsageError(f"--run {run.root}: has no tagged images")
    bare = [record.id for record in records if record.scores is None or np.isnan(record.scores).any()]
    if bare:
        raise UsageError(
            f"--run {run.root}: the scores of {len(bare)} images are not all stored (first {bare[0]!r}); give a run "
            "of `tagclip tag` or `tagclip run` without --keep-scores and --score-floor"
        )
    locator = PhotoLocator.of_run(run.root, image_root)
    paths = tuple(locator.find(record.id, record.path) for record in records)
    labels, corrected = (np.stack(rows) for rows in zip(*map(_labels_of, records), strict=True))
    digest = hashlib.sha256("\0".join(record.id for record in records).encode(errors="surrogateescape"))
    digest.update(labels.tobytes())
    if corrected.any():
        digest.update(np.packbits(corrected).tobytes())
    return LabeledPhotos(tuple(record.id for record in records), paths, labels, corrected, digest.hexdigest())


def _labels_of(record: TagRecord) -> tuple[np.ndarray, np.ndarray]:
    values = np.clip(np.asarray(record.scores, np.float32), 0, 1)
    corrected = np.zeros(len(values), bool)
    if record.correction is not None:
        for classes, value in ((record.correction.added, 1), (record.correction.removed, 0)):
            values[list(classes)], corrected[list(classes)] = value, True
    return values, corrected


@dataclass(frozen=True)
class CorrectedLabels:
    """Labels after CCD's correction.

    Attributes:
        labels: (n, C) float32 in [0, 1].
        weights: of the images in the loss, (n,) float32.
        bias: of each class, (C,) float32; 1 where no confident image has it as its best.
    """

    labels: np.ndarray
    weights: np.ndarray
    bias: np.ndarray


def correct_class_bias(labels: np.ndarray, config: BiasConfig) -> CorrectedLabels:
    """Divide each class's labels by the mean score it has where it is the best of a confident image (CCD, epoch 0).

    Args:
        labels: (n, C) in [0, 1]. The entropy is that of an image's labels scaled to sum to 1.
    """
    shares = labels / np.maximum(labels.sum(axis=1, keepdims=True), 1e-12)
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1)
    confident = entropy <= config.entropy
    best = labels.argmax(axis=1)
    bias = np.ones(labels.shape[1], np.float32)
    for label in range(labels.shape[1]):
        chosen = confident & (best == label)
        if chosen.any() and (mean := float(labels[chosen, label].mean())) > 0:
            bias[label] = mean
    corrected = np.clip(np.maximum(labels, config.floor) / bias, 0, 1).astype(np.float32)
    weights = np.where(confident, 1, config.doubtful_weight).astype(np.float32)
    return CorrectedLabels(corrected, weights, bias)


def align_labels(labels: np.ndarray, predicted: np.ndarray, config: AlignmentConfig) -> np.ndarray:
    """One gradient-aligned update (CDUL, section 3.2), for each class by itself: present with probability y, or not.

    The log odds of label y move by -step * psi(y) * d KL(y || p) / d y, where that derivative is logit y - logit p and
    psi the Gaussian density. CDUL's own labels are distributions over the classes; TagCLIP's scores are not.

    Args:
        labels: y, (n, C). predicted: p, (n, C); both in [0, 1].

    Returns:
        (n, C) float32 in (0, 1).
    """
    kept = np.clip(labels.astype(np.float64), config.margin, 1 - config.margin)
    seen = np.clip(predicted.astype(np.float64), config.margin, 1 - config.margin)
    gradient = _logit(kept) - _logit(seen)
    density = np.exp(-0.5 * ((kept - config.mean) / config.deviation) ** 2)
    density /= config.deviation * math.sqrt(2 * math.pi)
    moved = _logit(kept) - config.step * density * gradient
    return np.clip(1 / (1 + np.exp(-moved)), config.margin, 1 - config.margin).astype(np.float32)


def _logit(values: np.ndarray) -> np.ndarray:
    return np.log(values) - np.log1p(-values)

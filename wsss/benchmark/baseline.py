"""The baseline: a plain transcription of both papers, which the caller names: `tests/oracle` of a clone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image

from tagclip.clip import FrozenCLIP
from tagclip.errors import UsageError
from tagclip.stored_files import image_stream
from wsss.benchmark.measure import Clock
from wsss.benchmark.procedure import PhotoResult
from wsss.benchmark.settings import BenchmarkSettings
from wsss.benchmark.workload import ClassRows, Photo
from wsss.pipeline.recipe import Recipe

PACKAGE = "tagclip_oracle"  # the name it is imported under


def load_oracle(name: str, folder: Path) -> ModuleType:
    """A module of the transcription.

    Args:
        folder: a package of its own, `tests/oracle` of a clone of the repository.

    Raises:
        UsageError: no such package.
    """
    if PACKAGE not in sys.modules:
        file = folder / "__init__.py"
        if not file.is_file():
            raise UsageError(
                f"--oracle {folder}: not the plain transcription; it is tests/oracle of a clone, or leave the baseline "
                "out (--no-baseline)"
            )
        package = ModuleType(PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[PACKAGE] = package
    return importlib.import_module(f"{PACKAGE}.{name}")


def oracle_of(settings: BenchmarkSettings) -> Path:
    """The folder of the transcription that the settings name.

    Raises:
        UsageError: they name none.
    """
    if settings.oracle is None:
        raise UsageError("the baseline is tests/oracle of a clone: name it with --oracle, or use --no-baseline")
    return settings.oracle


class BaselineProcedure:
    """Stage one and stage two one after the other, photo by photo: a trunk pass each, loops over classes, T T a class.

    Stages: prepare, tags, maps. It computes what the reference preset computes.

    Args:
        clip: a float32 model on the CPU, of OpenAI's layout; its parameters are read, not copied.
        recipe: classes, and the constants that differ between data sets.
        rows: text features of the classes.
        oracle: folder of the transcription, see `load_oracle`.

    Raises:
        UsageError: no transcription there; attention heads or blocks of DMAR's affinity that it does not know.
    """

    stage_one = ("prepare", "tags")

    def __init__(self, clip: FrozenCLIP, recipe: Recipe, rows: ClassRows, oracle: Path):
        self._tagclip, self._clip_es = load_oracle("tagclip", oracle), load_oracle("clip_es", oracle)
        quick = "QuickGELU" in clip.architecture
        self._oracle = load_oracle("model", oracle).OracleCLIP(clip.model.state_dict(), quick_gelu=quick)
        if self._oracle.heads != clip.heads:
            raise UsageError(f"{clip.name}: the baseline knows attention heads of 64 channels only")
        depth, dmar = clip.depth, recipe.tagging.dmar.block_range(clip.depth)
        if dmar not in ((1, depth - 1), (depth - 3, depth - 1)):
            raise UsageError(f"the baseline does not know an affinity of blocks {dmar[0]}..{dmar[1]}")
        self._targets, self._all_layers = len(recipe.vocabulary), dmar[0] == 1
        self._affinity = recipe.masks.affinity
        self._blocks = self._affinity.block_range(clip.depth)
        self._rows = [torch.from_numpy(values) for values in (rows.tagging, rows.cam, rows.cam_background)]

    def __call__(self, photos: Sequence[Photo], clock: Clock) -> list[PhotoResult]:
        """Results of each photo for its tags."""
        return [self._one(photo, clock) for photo in photos]

    def _one(self, photo: Photo, clock: Clock) -> PhotoResult:
        tagging_rows, cam_rows, background_rows = self._rows
        with clock("prepare"):
            image = self._oracle.prepare(Image.open(image_stream(photo.path, whole=True)))
        with clock("tags"):
            traced = self._tagclip.tag_image(
                self._oracle, image, tagging_rows, self._targets,
                threshold=photo.threshold, all_layers=self._all_layers,
            )  # fmt: skip
            scores = traced.scores.numpy()
        with clock("maps"):
            first, last = self._blocks
            maps = self._clip_es.class_maps(
                self._oracle, image, photo.size, cam_rows[list(photo.labels)], background_rows,
                first_block=first, last_block=last, box_threshold=self._affinity.box_threshold,
            )  # fmt: skip
        crops = int((np.abs(scores - traced.local.numpy()) > 0).sum())
        return PhotoResult(scores, maps.cams, maps.refined, maps.stacked, crops)

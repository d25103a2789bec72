"""The class maps that a run keeps, as label probabilities at the size of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagclip.errors import ImageError, UsageError
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.files.map_files import read_maps
from wsss.files.run_files import read_manifest
from wsss.files.run_reader import RunReader
from wsss.masks.label_map import label_scores, refine_label_scores


@dataclass(frozen=True)
class RunMaps:
    """Stage two's view of the images of a run.

    Attributes:
        run: run folder with `cams/`.
        config: the run's mask settings: background exponent and refiner.
        has_background: label 0 is the background and class c is c + 1.
    """

    run: Path
    config: MaskConfig
    has_background: bool

    @classmethod
    def open(cls, run: Path, vocabulary: Vocabulary) -> RunMaps:
        """Raises:
        UsageError: `run` is not a run folder of stage two.
        """
        manifest = read_manifest(run)
        if manifest is None or "masks" not in manifest:
            raise UsageError(
                f"{run}: no run of stage two, so it has no class maps; set self_training.maps_share=0 and "
                "self_training.refine=False"
            )
        return cls(run, MaskConfig.from_dict(manifest["masks"]), vocabulary.has_background)

    def probabilities(self, sample_id: str, labels: Sequence[int], size: tuple[int, int]) -> np.ndarray:
        """What the maps say of each pixel, before the refiner.

        Args:
            sample_id: image of the run.
            labels: label ids to return; those without a map get 0.
            size: (height, width) of the image.

        Returns:
            (K, H, W) float32 in [0, 1], K the number of `labels`; sums to 1 where any of them has a score.

        Raises:
            ImageError: the image's maps are missing, damaged, or of another size.
        """
        path = RunReader(self.run).place("cams", sample_id)
        stored = read_maps(path)
        if stored.size != tuple(size):
            raise ImageError(f"{path}: maps of an image of {stored.size}, which now has {tuple(size)}")
        scores = label_scores(stored.maps, size, self.config, has_background=self.has_background)
        there = [0, *(int(c) + 1 for c in stored.classes)] if self.has_background else [int(c) for c in stored.classes]
        result = np.zeros((len(labels), *size), np.float32)
        for place, label in enumerate(labels):
            if label in there:
                result[place] = scores[there.index(label)]
        return result / np.maximum(result.sum(axis=0), np.finfo(np.float32).tiny)

    def refine(self, rgb: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """The run's refiner on other probabilities, (K, H, W); see `wsss.masks.label_map.refine_label_scores`."""
        return refine_label_scores(rgb, np.ascontiguousarray(probabilities), self.config)

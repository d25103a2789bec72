"""A run folder, read: tags, masks and class maps by image id, without a lock and without a model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.errors import RunError, UsageError
from tagclip.tag_files import TagRecord, parse_tag_line
from tagclip.vocabulary import Vocabulary
from wsss.files.confidence_files import read_confidence
from wsss.files.map_files import read_maps
from wsss.files.mask_files import read_mask
from wsss.files.photos import PhotoLocator
from wsss.files.run_files import (
    ASIDE,
    REJECTED_FILE,
    json_lines,
    manifest_digest,
    read_manifest,
    run_id,
    run_vocabulary,
)  # fmt: skip


class RunReader:
    """What a run folder holds. Nothing is read before it is asked for.

    Args:
        root: the folder, as `label_folder` or `tagclip run` wrote it.

    Example:
        >>> run = RunReader("runs/mine")  # doctest: +SKIP
        >>> for record in run.records():  # doctest: +SKIP
        ...     print(record.id, [run.vocabulary.names[index] for index in record.indices], run.mask(record.id).shape)
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The run's classes.

        Raises:
            UsageError: not a run folder.
        """
        found = run_vocabulary(self.root)
        if found is None:
            raise UsageError(f"{self.root}: no manifest.json there; give a run folder")
        return found

    @property
    def id(self) -> str:
        """The run's id, which stays when thresholds change or photos are added.

        Raises:
            UsageError: not a run folder.
        """
        return run_id(self._manifest())

    @property
    def manifest_sha256(self) -> str:
        """sha256 (hex) of the run's manifest.json as it is now; "" if there is none."""
        return manifest_digest(self.root)

    def _manifest(self) -> dict[str, Any]:
        found = read_manifest(self.root)
        if found is None:
            raise UsageError(f"{self.root}: no manifest.json there; give a run folder")
        return found

    def records(self) -> Iterator[TagRecord]:
        """The tags of every image of the data set, in the order of the images.

        Failed images are not among them, nor those that a person has rejected (see `rejected`) or whose photos have
        left the collection.

        Raises:
            RunError: the run is not complete, or its tags are damaged.
        """
        path = self.root / "tags.jsonl"
        if not path.is_file():
            raise RunError(f"{self.root}: no tags.jsonl, the run is not complete; run its command again")
        for line, place in json_lines(path):
            yield parse_tag_line(line, self.vocabulary, place)

    def rejected(self) -> Iterator[TagRecord]:
        """The tags of the images that a person has taken out of the data set, in the order of the images.

        Raises:
            RunError: they are damaged.
        """
        for line, place in json_lines(self.root / REJECTED_FILE):
            yield parse_tag_line(line, self.vocabulary, place)

    def photo(self, record: TagRecord, image_root: Path | str | None = None) -> Path:
        """Where the photo of a record is.

        Args:
            image_root: where the photos are now; None: where they were when the run was made.

        Raises:
            UsageError: it is not there; the message says where it was looked for.
        """
        return PhotoLocator.of_run(self.root, image_root).find(record.id, record.path)

    def failed(self) -> list[dict[str, Any]]:
        """Images without a result: {"id", "path", "stage", "error", "message"} of each."""
        return [line for line, _ in json_lines(self.root / "failures.jsonl")]

    def mask(self, image_id: str) -> np.ndarray:
        """Label map of an image, (H, W): 0 background and class c -> c + 1 (without background: c -> c), 255 ignored.

        Raises:
            ImageError: there is none, or it is damaged.
        """
        return read_mask(self.mask_path(image_id))

    def confidence(self, image_id: str) -> np.ndarray:
        """Probability of each pixel's most probable label, (H, W) float32 in [0, 1], in steps of 1 / 255.

        It is that of the label before doubtful pixels were ignored: a pixel that the mask ignores has one, too.

        Raises:
            ImageError: there is none (runs with --save-confidence have them), or it is damaged.
        """
        return read_confidence(self.confidence_path(image_id))

    def maps(self, image_id: str) -> dict[str, np.ndarray]:
        """Class maps of an image by tag name, (h, w) in [0, 1] on the patch grid, float16 or float32 as stored.

        Raises:
            ImageError: there are none, or they are damaged.
        """
        stored = read_maps(self.maps_path(image_id))
        names = [self.vocabulary.names[index] for index in stored.classes.tolist()]
        return dict(zip(names, stored.maps, strict=True))

    def maps_path(self, image_id: str) -> Path:
        """Where the image's maps are."""
        return self.root / "cams" / f"{image_id}.npz"

    def confidence_path(self, image_id: str) -> Path:
        """Where the confidence of the image's mask is, if the run was told to save it."""
        return self.root / "confidence" / f"{image_id}.png"

    def mask_path(self, image_id: str) -> Path:
        """Where the image's mask is."""
        return self.root / "masks" / f"{image_id}.png"

    def stored(self, path: Path) -> Path | None:
        """Where a file of an image is: in the data set, or aside while the image is out of it; None if there is none.

        Args:
            path: what `mask_path`, `maps_path` or `confidence_path` gave.
        """
        aside = self.root / ASIDE / path.relative_to(self.root)
        return next((place for place in (path, aside) if place.is_file()), None)

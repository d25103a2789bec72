"""Tags that come from a file: ours, a published list, or ground truth."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tagclip.errors import UsageError
from tagclip.image_lists import ImageFile
from tagclip.labels import find_labels, read_labels
from tagclip.tag_files import IdKind, TagRecord, read_tags
from tagclip.vocabulary import Vocabulary


def read_given_tags(source: Path, vocabulary: Vocabulary, *, ids: IdKind = "auto") -> dict[str, TagRecord]:
    """Tags by image id.

    Args:
        source: tags.jsonl or a run folder, a plain list `id class class`, a folder of VOC XML files, or COCO JSON.
        ids: what the numbers of a plain list are, see `tagclip.tag_files.map_ids`.

    Raises:
        UsageError: no such file, nothing in it, an unknown class, or an id twice; file and line are named.
    """
    if source.suffix.lower() == ".json" or (source.is_dir() and not (source / "tags.jsonl").is_file()):
        labels = read_labels(source, vocabulary, ids=ids)
        tags = {name: TagRecord(name, indices) for name, indices in labels.items()}
    else:
        tags = {record.id: record for record in read_tags(source, vocabulary, ids=ids)}
    if not tags:
        raise UsageError(f"--tags {source}: no tags in it")
    return tags


def tags_digest(tags: Mapping[str, TagRecord]) -> str:
    """sha256 (hex) of ids, classes and scores, whatever the file's format and order."""
    digest = hashlib.sha256()
    for name in sorted(tags):
        given = tags[name]
        digest.update(f"{name}\0{' '.join(map(str, given.indices))}\0".encode(errors="surrogateescape"))
        digest.update(b"" if given.scores is None else np.ascontiguousarray(given.scores, "<f4").tobytes())
        digest.update(b"\n")
    return digest.hexdigest()


@dataclass(frozen=True)
class Matched:
    """Images and tags brought together.

    Attributes:
        files: images that the batches are planned over.
        tags: of each image that has any, by the image's id.
        absent: ids with tags and without an image.
    """

    files: list[ImageFile]
    tags: dict[str, TagRecord]
    absent: list[str]

    @property
    def ids(self) -> set[str]:
        """Ids of the images that have tags."""
        return set(self.tags)


def match_tags(files: Sequence[ImageFile], tags: dict[str, TagRecord], source: Path) -> Matched:
    """Which images are done, and which the batches are planned over.

    An image has the tags under its id, or, where two images of the tags' file differ only in suffix, those under id
    and suffix (`tagclip.labels.find_labels`).

    Batches are planned over all images as long as at least half of them have tags: those that a tagging run over the
    same list left out (unreadable ones) then keep their place, and everyone keeps its companions. With fewer (one
    split of a large folder) the plan is made over the tagged images alone, whose batches would else be nearly empty.

    Raises:
        UsageError: no image has tags.
    """
    found = {}
    for file in files:
        record = find_labels(tags, file.id, file.path.name)
        if record is not None:
            found[file.id] = record
    if not found:
        raise UsageError(
            f"--tags {source}: none of its {len(tags)} ids (first {next(iter(tags))!r}) is among the {len(files)} "
            f"images (first {files[0].id!r}); ids are paths relative to the image root, without suffix"
        )
    used = {record.id for record in found.values()}
    planned = list(files) if 2 * len(found) >= len(files) else [file for file in files if file.id in found]
    return Matched(planned, found, [name for name in tags if name not in used])

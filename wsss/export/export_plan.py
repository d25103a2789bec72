"""Which images of a run an export holds, under which names and numbers, and in which list."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tagclip.image_ids import escaped_id, id_text
from tagclip.tag_files import TagRecord
from wsss.export.export_options import ExportOptions
from wsss.export.splits import parse_split, stratified
from wsss.files.run_reader import RunReader

LARGEST_NUMBER = 2**31 - 1
REJECTED, NOT_CHECKED, FAILED, NO_MASK, KNOWN = (
    "rejected", "not checked", "failed in the run", "without a mask", "there already",
)  # fmt: skip


@dataclass(frozen=True)
class ImagePlace:
    """Where one image goes; see `ExportSample`."""

    name: str
    number: int
    split: str


@dataclass
class ExportPlan:
    """What is exported.

    Attributes:
        images: by id, in the run's order.
        splits: names of the lists, in order.
        left_out: images by why they are not exported.
        escaped: names that differ from the ids.
        records: number of images that the run has tags of.
    """

    images: dict[str, ImagePlace] = field(default_factory=dict)
    splits: tuple[str, ...] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    escaped: int = 0
    records: int = 0

    def without(self, known: Iterable[str], by_id: bool) -> None:
        """Leaves out what a data set has already.

        Args:
            known: names, or, with `by_id`, ids.
        """
        there = set(known)
        for image_id in [one for one, plan in self.images.items() if (one if by_id else plan.name) in there]:
            del self.images[image_id]
            self.left_out[KNOWN] += 1


def plan_export(run: RunReader, options: ExportOptions, default_split: str, *, needs_masks: bool) -> ExportPlan:
    """Reads the run's tags and decides for each image.

    Args:
        default_split: name of the one list where the options name none.
        needs_masks: leave out images without a mask.

    Raises:
        UsageError: no run, or a split that cannot be read. RunError: the run is not complete or damaged.
    """
    shares = parse_split(options.split) if options.split is not None else {default_split: 1.0}
    plan = ExportPlan(splits=tuple(shares))
    ids, chosen, tags = [], [], []
    for record in run.records():
        ids.append(record.id)
        state = record_state(record)
        if state == "rejected":
            plan.left_out[REJECTED] += 1
        elif options.only_checked and state != "checked":
            plan.left_out[NOT_CHECKED] += 1
        elif needs_masks and not run.mask_path(record.id).is_file():
            plan.left_out[NO_MASK] += 1
        else:
            chosen.append(record.id)
            tags.append(sure_tags(record, options.min_confidence))
    plan.records = len(ids)
    plan.left_out[REJECTED] += sum(1 for _ in run.rejected())
    there = set(ids)
    failed = {str(line.get("id")) for line in run.failed()}
    without = plan.left_out.pop(NO_MASK, 0)
    unmasked = sum(1 for one in failed if one in there and needs_masks and not run.mask_path(one).is_file())
    plan.left_out[FAILED] += len(failed - there) + min(without, unmasked)
    plan.left_out[NO_MASK] += max(0, without - unmasked)
    plan.left_out = +plan.left_out
    numbers, names = stable_numbers(ids), export_names(ids)
    for image_id, split in zip(chosen, stratified(tags, shares, options.seed), strict=True):
        plan.images[image_id] = ImagePlace(names[image_id], numbers[image_id], split)
    plan.escaped = sum(1 for image_id, one in plan.images.items() if one.name != image_id)
    return plan


def record_state(record: TagRecord) -> str | None:
    """What a person made of an image: "checked", "rejected" or None."""
    return None if record.correction is None else record.correction.state


def sure_tags(record: TagRecord, least: float | None) -> tuple[int, ...]:
    """The tags whose score is not below a number; those without a known score, and those that a person added, stay."""
    if least is None or record.scores is None:
        return record.indices
    added, scores = added_tags(record), record.scores
    return tuple(
        index
        for index in record.indices
        if index in added or np.isnan(scores[index]) or scores[index] >= np.float32(least)
    )


def added_tags(record: TagRecord) -> frozenset[int]:
    """Tags that a person gave: no score is a reason to drop them."""
    return frozenset(() if record.correction is None else record.correction.added)


def stable_numbers(ids: Iterable[str]) -> dict[str, int]:
    """A number from 1 for each id, of 31 bits: the same in whatever order the ids come, nearly always the same with
    others beside it (of two ids that share a number, the later one in the alphabet gets the next)."""
    numbers: dict[str, int] = {}
    taken: set[int] = set()
    for image_id in sorted(ids):
        digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).digest()
        number = int.from_bytes(digest[:4], "big") % LARGEST_NUMBER + 1
        while number in taken:
            number = number % LARGEST_NUMBER + 1
        taken.add(number)
        numbers[image_id] = number
    return numbers


def export_names(ids: Iterable[str]) -> dict[str, str]:
    """Names of files by id: the id itself, but with percent signs where a line of a list could not hold it."""
    ids = list(ids)
    taken = set(ids)
    names = {}
    for image_id in ids:
        name = image_id
        if id_text(image_id).startswith('"'):
            name = _escaped_line(image_id)
            while name in taken:
                name = f"%{name}"
            taken.add(name)
        names[image_id] = name
    return names


def _escaped_line(text: str) -> str:
    last = len(text) - 1
    return "".join(
        "".join(f"%{byte:02X}" for byte in character.encode())
        if not character.isprintable() or (place in (0, last) and (character.isspace() or character in '#"\ufeff'))
        else character
        for place, character in enumerate(text)
    )


def plain_path(path: str) -> str:
    """A recorded path as text: one that is not UTF-8 with percent signs, like an id."""
    return path if plain_text(path) == path else escaped_id(path)


def plain_text(text: str) -> str:
    """Text that every file can hold: halves of characters become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def sizes_on_disk(run: RunReader, photos: Mapping[str, Path | None]) -> int:
    """Bytes of the photos and masks of images, for an estimate."""
    total = 0
    for image_id, photo in photos.items():
        for path in (photo, run.mask_path(image_id)):
            if path is not None and path.is_file():
                total += path.stat().st_size
    return total

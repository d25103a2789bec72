"""What becomes of a run's images when rule, tag file, photos or corrections change: tags anew, from stored scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.config import TagRuleConfig
from tagclip.errors import RunError, UsageError
from tagclip.tag_files import KeptScores, TagCorrection, TagRecord, parse_tag_line, tag_line
from tagclip.thresholds import select
from tagclip.vocabulary import Vocabulary
from wsss.files.corrections import Corrections, ImageCorrection, corrected_tags

IDS_SHOWN = 3


def composed(earlier: Corrections | None, later: Corrections) -> Corrections:
    """Two rounds of corrections as one: for each threshold, each class of an image, each state and note, the last word.

    An image that only the earlier round names keeps what was said; one that the later round names has the later
    round's state and note.
    """
    if earlier is None:
        return later
    images = dict(earlier.images)
    for image_id, said in later.images.items():
        before = images.get(image_id, ImageCorrection())
        add = [name for name in before.add if name not in said.remove and name not in said.add]
        remove = [name for name in before.remove if name not in said.remove and name not in said.add]
        images[image_id] = replace(said, add=(*add, *said.add), remove=(*remove, *said.remove))
    return replace(
        later, run_id=earlier.run_id, thresholds={**earlier.thresholds, **later.thresholds}, images=images
    )


@dataclass(frozen=True)
class WantedTags:
    """The tags that an image shall have.

    Attributes:
        vocabulary: classes.
        rule: from scores to tags, with thresholds in class order; None where tags come from a file, or stay as they
            are.
        given: tags from a file, by image id; None without.
        corrections: everything that people have said of the run.
    """

    vocabulary: Vocabulary
    rule: TagRuleConfig | None
    given: Mapping[str, TagRecord] | None = None
    corrections: Corrections | None = None

    @property
    def is_rule(self) -> bool:
        """Whether the rule alone decides."""
        return self.rule is not None and self.given is None and self.corrections is None

    def of(self, record: TagRecord) -> TagRecord:
        """The record with the tags that it shall have, and with what was said of it.

        Args:
            record: of the run, whose own tags do not count; its correction tells who has said what so far.

        Raises:
            RunError: scores that the rule needs were not stored.
        """
        machine = self._machine(record)
        if self.corrections is None:
            return machine
        names = self.vocabulary.names
        index = {name: place for place, name in enumerate(names)}
        said = self.corrections.images.get(record.id)
        tags = tuple(index[name] for name in corrected_tags(machine, self.corrections, names))
        inherited = machine.correction
        if said is None and inherited is None and tags == machine.indices:
            return machine
        said = said or ImageCorrection()
        before, by = record.correction or TagCorrection(()), self.corrections.by
        base = inherited or TagCorrection(machine.indices)
        added = {place: before.added.get(place, by) for place in (index[name] for name in said.add)}
        removed = {place: before.removed.get(place, by) for place in (index[name] for name in said.remove)}
        own = replace(
            base,
            added=added | {place: who for place, who in base.added.items() if place not in {*added, *removed}},
            removed=removed | {place: who for place, who in base.removed.items() if place not in {*added, *removed}},
            state=said.state,
            note=said.note,
        )
        if (own.state, own.note) == (before.state, before.note):
            by = before.by
        return replace(machine, indices=tags, correction=replace(own, by=by if own.state or own.note else ""))

    def _machine(self, record: TagRecord) -> TagRecord:
        if self.given is not None:
            given = self.given.get(record.id)
            if given is None:
                return record
            return replace(record, indices=given.indices, scores=given.scores, correction=given.correction)
        if self.rule is None:
            return replace(record, correction=None)
        if record.scores is None or np.isnan(record.scores).any():
            raise RunError(
                f"image {record.id!r}: not all of its scores were stored, so that its tags cannot be taken anew; "
                "choose another folder, or --overwrite"
            )
        chosen = select(record.scores[None], self.rule)[0]
        return replace(record, indices=tuple(np.flatnonzero(chosen).tolist()), correction=None)


@dataclass
class Changes:
    """What a run's images become.

    Attributes:
        lines: of tags.jsonl, of the records that differ.
        remade: ids of images whose tags differ: their class maps and masks are made anew.
        gained, lost: images by class name.
        added: ids of images without a record yet; left: of tagged images whose photos are not there any more.
        rejected: ids of images that a person has taken out of the data set.
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    remade: list[str] = field(default_factory=list)
    gained: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    added: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        """Whether tags and collection stay as they are; images may have been rejected before."""
        return not (self.lines or self.remade or self.added or self.left)

    def sentences(self) -> list[str]:
        """What there is to say, for the log and the screen."""
        said = []
        if self.added:
            said.append(f"{len(self.added)} images without tags so far: {shown_ids(self.added)}")
        if self.left:
            said.append(
                f"{len(self.left)} photos are not there any more: {shown_ids(self.left)}; their records go to "
                "left.jsonl, their maps and masks to aside/, and come back with the photos"
            )
        if self.remade:
            classes = [f"+{self.gained[name]} -{self.lost[name]} {name}" for name in sorted({*self.gained, *self.lost})]
            said.append(f"{len(self.remade)} images change their tags: {', '.join(classes)}")
        if self.rejected:
            said.append(f"{len(self.rejected)} images are rejected: {shown_ids(sorted(self.rejected))}")
        return said


def shown_ids(ids: Sequence[str]) -> str:
    """The first few ids and how many more there are."""
    rest = len(ids) - IDS_SHOWN
    return ", ".join(ids[:IDS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def compare_tags(
    stored: Callable[[str], dict[str, Any]], tagged: Iterable[str], order: Sequence[str], wanted: WantedTags,
    *, scores_matter: bool = False, failed: Iterable[str] = (), kept: KeptScores | None = None,
) -> Changes:  # fmt: skip
    """What becomes of the images of a run.

    Args:
        stored: the line of tags.jsonl of an image id.
        tagged: ids that have one.
        order: ids of the images that the run is about.
        wanted: the tags that they shall have.
        scores_matter: class maps depend on the scores, so that other scores count as other tags.
        failed: ids of images that failed.
        kept: which scores the run stores; None for all.

    Raises:
        RunError: damaged lines, or scores that were not stored.
    """
    found, names = Changes(), wanted.vocabulary.names
    here, tagged, failed = set(order), set(tagged), set(failed)
    for image_id in order:
        if image_id not in tagged:
            if image_id not in failed:
                found.added.append(image_id)
            continue
        line = stored(image_id)
        record = parse_tag_line(line, wanted.vocabulary, f"image {image_id!r}")
        new = wanted.of(record)
        if new.is_rejected:
            found.rejected.add(image_id)
        written = tag_line(new, wanted.vocabulary, kept=kept)
        if written != line:
            found.lines.append(written)
        if new.indices != record.indices:
            found.gained.update(names[place] for place in new.indices if place not in record.indices)
            found.lost.update(names[place] for place in record.indices if place not in new.indices)
            found.remade.append(image_id)
        elif scores_matter and not _same_scores(new, record):
            found.remade.append(image_id)
    found.left = sorted(tagged - here)
    return found


def _same_scores(one: TagRecord, other: TagRecord) -> bool:
    if one.scores is None or other.scores is None:
        return one.scores is other.scores
    return np.array_equal(one.scores, other.scores, equal_nan=True)


def check_corrections(corrections: Corrections, run_id: str, place: Path, name: str, classes: Sequence[str]) -> None:
    """Makes sure that corrections are of this run and name its classes.

    Args:
        place: their file. name: what messages call the run.

    Raises:
        UsageError: of another run, or a class that it does not have.
    """
    if corrections.run_id != run_id:
        raise UsageError(
            f"--corrections {place}: made of run {corrections.run_id}, but {name} is run {run_id}; give those of "
            "this run"
        )
    corrections.check_classes(classes, f"--corrections {place}")


def refuse_other_images(out: Path, changes: Changes, tagged: int, order: Sequence[str], limit: int | None) -> None:
    """Photos may leave a collection one by one; where all have left, or --limit hides them, it is another one.

    Args:
        out: the run folder. tagged: images that it holds.
        order: ids of the images here. limit: how many of them were asked for.

    Raises:
        RunError: another collection.
    """
    if changes.left and limit is not None:
        raise RunError(
            f"--limit {limit}: --out {out} holds {len(changes.left)} images beyond it, which would leave the data set; "
            "leave --limit out, or choose another folder"
        )
    if changes.left and len(changes.left) == tagged:
        raise RunError(
            f"--out {out}: belongs to a run of other images (first {changes.left[0]!r} there, {order[0]!r} here); "
            "choose another folder, or --overwrite"
        )

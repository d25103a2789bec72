"""A plan in parts that any number of machines share: whole batches, cut by the list alone.

Each part is a numbered task with records of its own and a marker that says that it is done (the idea of datatrove), so
that machines need no locks between them, and another number of machines can take the work up.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tagclip.errors import RunError, UsageError
from wsss.files.run_files import read_manifest
from wsss.files.run_folder import part_is_done
from wsss.pipeline.planning import Plan

IMAGES_PER_PART = 256  # at least; a part ends with the batch that reaches it
SHOWN_PARTS = 8  # numbers in one message


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of the parts: every `count`-th part, beginning with part `number` - 1.

    Raises:
        UsageError: a number outside 1..count.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"--shard {self.number}/{self.count}: K/N with K from 1 to N, such as 3/16")

    def own(self, parts: int) -> range:
        """Numbers of its parts, from 0."""
        return range(self.number - 1, parts, self.count)


def cut_parts(plan: Plan, images: int | None = None) -> list[Plan]:
    """The plan's batches in parts of at least `images` images, in order.

    Images that cannot be read belong to no part: whoever merges the parts records them.
    """
    least = IMAGES_PER_PART if images is None else images
    lengths = plan.batch_lengths()
    starts: list[int] = []
    held = least
    for number, length in enumerate(lengths):
        if held >= least:
            starts.append(number)
            held = 0
        held += length
    return [plan.part(first, last) for first, last in itertools.pairwise([*starts, len(lengths)])]


def missing_parts(root: Path, count: int) -> list[int]:
    """Numbers of the parts that are not done yet; none of a run that is merged."""
    manifest = read_manifest(root)
    if manifest is not None and manifest.get("state") == "complete":
        return []
    return [number for number in range(count) if not part_is_done(root, number)]


def require_parts(root: Path, count: int) -> None:
    """Refuses to merge while parts are missing.

    Raises:
        RunError: some are; it names them.
    """
    if missing := missing_parts(root, count):
        raise RunError(
            f"{root}: {len(missing)} of {count} parts are not done: {shown_parts(missing)}; run their shards again "
            "with the same --shard, or the same command without --shard, which does the rest alone"
        )


def shown_parts(numbers: Sequence[int]) -> str:
    """A few numbers of parts, for messages."""
    more = f" and {len(numbers) - SHOWN_PARTS} more" if len(numbers) > SHOWN_PARTS else ""
    return ", ".join(map(str, numbers[:SHOWN_PARTS])) + more

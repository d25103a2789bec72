"""What a person said of a run: thresholds that were moved, tags added and removed, images checked and rejected.

`corrections.json` (format 1; its JSON schema is `corrections.schema.json` beside this module) is what the review page
saves and what `--corrections` takes. The run folder keeps everything said so far under the same name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tagclip.errors import UsageError
from tagclip.image_ids import check_id
from tagclip.tag_files import State, TagRecord
from tagclip.text_files import read_text
from wsss.files.provenance import write_record

CORRECTIONS_FILE = "corrections.json"
CORRECTIONS_FORMAT = 1
LONGEST_PROBLEM = 160  # characters of a message of the schema's


@dataclass(frozen=True)
class ImageCorrection:
    """What was said of one image.

    Attributes:
        add, remove: class names; they win over scores and thresholds.
        state: "checked", "rejected" (out of the data set) or None.
        note: a remark.
    """

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    state: State | None = None
    note: str = ""


@dataclass(frozen=True)
class Corrections:
    """What was said of a run in one sitting.

    Attributes:
        run_id: `id` of the run's manifest (`RunReader.id`).
        manifest_sha256: of the manifest.json that was looked at (`RunReader.manifest_sha256`); "" if not known.
        by: who said it.
        saved: when, ISO 8601.
        thresholds: class name -> t, of the classes whose threshold was moved: their tag is score >= t.
        images: image id -> what was said of it. An image that is not named keeps what was said of it before.
    """

    run_id: str
    manifest_sha256: str = ""
    by: str = ""
    saved: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, ImageCorrection] = field(default_factory=dict)

    def check_classes(self, classes: Sequence[str], place: str = "corrections") -> None:
        """Makes sure that every class named is one of the run's.

        Raises:
            UsageError: one is not; the message says where.
        """
        known = set(classes)
        for name in self.thresholds:
            if name not in known:
                raise UsageError(f"{place}: thresholds: {name!r} is not a class of the run")
        for image_id, said in self.images.items():
            for name in (*said.add, *said.remove):
                if name not in known:
                    raise UsageError(f"{place}: image {image_id!r}: {name!r} is not a class of the run")


def read_corrections(path: Path | str) -> Corrections:
    """Reads and checks a file of corrections.

    Raises:
        UsageError: no such file, not JSON, or not what the schema says: one line that names file, place and problem.
    """
    path = Path(path)
    text = read_text(path, "corrections")
    try:
        content = json.loads(text, parse_constant=_no_number, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"corrections {path}: not valid JSON ({error})") from None
    problem = next(iter(_validator().iter_errors(content)), None)
    if problem is not None:
        place = "".join(f"[{key!r}]" for key in problem.absolute_path)
        message = " ".join(problem.message.split())
        if len(message) > LONGEST_PROBLEM:
            half = LONGEST_PROBLEM // 2
            message = f"{message[:half]} ... {message[-half:]}"
        raise UsageError(f"corrections {path}: {place + ': ' if place else ''}{message}; save them again")
    images = {}
    for image_id, said in content["images"].items():
        check_id(image_id, f"corrections {path}")
        one = ImageCorrection(
            tuple(said.get("add", ())), tuple(said.get("remove", ())), said.get("state"), said.get("note", "")
        )
        if both := [name for name in one.add if name in one.remove]:
            raise UsageError(f"corrections {path}: image {image_id!r}: {both[0]!r} is both added and removed")
        images[image_id] = one
    thresholds = {name: float(value) for name, value in content["thresholds"].items()}
    run = content["run"]
    return Corrections(
        run["id"], run.get("manifest_sha256", ""), content.get("by", ""), content.get("saved", ""), thresholds, images
    )


def write_corrections(corrections: Corrections, path: Path | str) -> None:
    """Writes what `read_corrections` reads.

    Raises:
        RunError: full disk or unwritable folder.
    """
    images = {
        image_id: {"add": list(said.add), "remove": list(said.remove), "state": said.state, "note": said.note}
        for image_id, said in corrections.images.items()
    }
    write_record(
        Path(path),
        {
            "format": CORRECTIONS_FORMAT,
            "run": {"id": corrections.run_id, "manifest_sha256": corrections.manifest_sha256},
            "by": corrections.by,
            "saved": corrections.saved,
            "thresholds": dict(corrections.thresholds),
            "images": images,
        },
    )


def corrected_tags(record: TagRecord, corrections: Corrections, classes: Sequence[str]) -> tuple[str, ...]:
    """Tags of an image with corrections over the tags that it has; a state changes none of them.

    A class whose threshold was moved is a tag where its score, as float32, is at least t; where the score is not
    known, and for all other classes, the record's own tags count. What a person has said of this very image before
    (`record.correction`) wins over that, and what `corrections` say of it wins over everything. `at_least_one` does not
    apply: an image may end without tags.

    Args:
        record: with its tags and scores, (C,) float32.
        classes: the C class names, in class order.

    Returns:
        Names, in class order.

    Raises:
        UsageError: a class that is not among `classes`.
    """
    index = {name: place for place, name in enumerate(classes)}
    try:
        tags = set(record.indices)
        for name, threshold in corrections.thresholds.items():
            place = index[name]
            if record.scores is not None and not np.isnan(record.scores[place]):
                keep = tags.add if record.scores[place] >= np.float32(threshold) else tags.discard
                keep(place)
        if record.correction is not None:
            tags = (tags | record.correction.added.keys()) - record.correction.removed.keys()
        said = corrections.images.get(record.id, ImageCorrection())
        tags |= {index[name] for name in said.add}
        tags -= {index[name] for name in said.remove}
    except KeyError as error:
        raise UsageError(f"corrections: {error.args[0]!r} is not a class of the run") from None
    return tuple(classes[place] for place in sorted(tags))


def corrections_schema() -> dict[str, Any]:
    """The JSON schema of a file of corrections."""
    file = resources.files("wsss.files") / "corrections.schema.json"
    return json.loads(file.read_text(encoding="utf-8"))


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(corrections_schema())


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _without_repeats(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"{key!r} stands there twice")
        values[key] = value
    return values

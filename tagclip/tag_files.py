"""Tags on disk: JSON lines with scores, and the plain `id class class` text of the published lists."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from tagclip.errors import UsageError
from tagclip.image_ids import check_id, id_text, list_lines, split_line
from tagclip.text_files import parse_json, read_lines
from tagclip.vocabulary import Vocabulary

IdKind = Literal["index", "raw", "auto"]

State = Literal["checked", "rejected"]
STATES = ("checked", "rejected")
LONGEST_NUMBER = 20  # digits of a class number, far beyond any
HIGHEST_SCORE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class TagCorrection:
    """What a person said of one image, and what the machine had said.

    Attributes:
        machine: classes that the run's own rule, or its tag file, gives the image, ascending.
        added, removed: class index -> who said it ("" if nobody gave a name); these win over rule and thresholds.
        state: the person has "checked" or "rejected" the image; None: neither.
        note: a remark.
        by: who gave the state and the note.
    """

    machine: tuple[int, ...]
    added: Mapping[int, str] = field(default_factory=dict)
    removed: Mapping[int, str] = field(default_factory=dict)
    state: State | None = None
    note: str = ""
    by: str = ""


@dataclass(frozen=True)
class TagRecord:
    """Tags of one image, as a line of a file holds them.

    Attributes:
        id: of the image: its path relative to the image root, without suffix.
        indices: of its tags, ascending.
        path: of the image file, relative to the run's image root or absolute; None in plain text.
        size: (height, width) in pixels, upright; None in plain text.
        scores: (C,) float32, NaN where the file keeps only the top k; None in plain text.
        file_size: of the image file in bytes, by which a photo is known again; None where it was not recorded.
        correction: what a person said of the image; None where nobody said anything. `indices` are the tags with it.
    """

    id: str
    indices: tuple[int, ...]
    path: str | None = None
    size: tuple[int, int] | None = None
    scores: np.ndarray | None = None
    file_size: int | None = None
    correction: TagCorrection | None = None

    @property
    def is_rejected(self) -> bool:
        """Whether a person has taken the image out of the data set."""
        return self.correction is not None and self.correction.state == "rejected"


@dataclass(frozen=True)
class KeptScores:
    """Which scores of an image are stored, besides those of its tags; all by default.

    Attributes:
        best: only the k highest.
        above: only scores above this one.
    """

    best: int | None = None
    above: float | None = None

    @property
    def all(self) -> bool:
        """Whether none is left out."""
        return self.best is None and self.above is None

    def of(self, scores: np.ndarray) -> list[int]:
        """Indices of the scores (C,) that are kept, best first; NaN is no score."""
        order = np.argsort(-scores, kind="stable")[: self.best].tolist()
        lowest = -np.inf if self.above is None else self.above
        return [index for index in order if not np.isnan(scores[index]) and scores[index] > lowest]


def tag_line(record: TagRecord, vocabulary: Vocabulary, *, kept: KeptScores | None = None) -> dict[str, Any]:
    """One image as a JSON-ready line of tags.jsonl; `parse_tag_line` reads it back.

    Args:
        record: of the image, path and size included. Scores that are NaN are not known and left out.
        kept: which scores are stored; None for all.

    Returns:
        {"id", "path", "size": [H, W], "file_size", "scores": [C numbers] or {name: number}, "tags": [names],
        "correction": {"machine": [names], "added": {name: by}, "removed": {name: by}, "state", "note", "by"}}; no
        "scores", "file_size" or "correction" without any, and of a correction only what is not empty beside "machine".
        Scores are in class order while all are known, else by name. Numbers are the shortest that read back as the
        same float32.
    """
    line: dict[str, Any] = {"id": record.id, "path": record.path, "size": list(record.size or ())}
    if record.file_size is not None:
        line["file_size"] = record.file_size
    if record.scores is not None:
        line["scores"] = _stored_scores(record.scores, record.indices, vocabulary, kept or KeptScores())
    line["tags"] = [vocabulary.names[index] for index in record.indices]
    if record.correction is not None:
        line["correction"] = _correction_line(record.correction, vocabulary.names)
    return line


def _correction_line(correction: TagCorrection, names: Sequence[str]) -> dict[str, Any]:
    said = {
        kind: {names[index]: by for index, by in sorted(changes.items())}
        for kind, changes in (("added", correction.added), ("removed", correction.removed))
    }
    others = {"state": correction.state, "note": correction.note, "by": correction.by}
    given = {key: value for key, value in {**said, **others}.items() if value}
    return {"machine": [names[index] for index in correction.machine], **given}


def _stored_scores(
    scores: np.ndarray, indices: Sequence[int], vocabulary: Vocabulary, which: KeptScores
) -> list[float] | dict[str, float]:
    scores = np.asarray(scores, np.float32)
    known = ~np.isnan(scores)
    if not which.all:
        best = which.of(scores)
        kept = [*best, *(index for index in indices if index not in best and known[index])]
    elif known.all():
        return [float(str(value)) for value in scores]
    else:
        kept = np.flatnonzero(known).tolist()
    return {vocabulary.names[index]: float(str(scores[index])) for index in kept}


def parse_tag_line(line: dict[str, Any], vocabulary: Vocabulary, place: str = "tags") -> TagRecord:
    """A line of tags.jsonl, after json.loads, as a record.

    Raises:
        UsageError: a missing field, an id that leaves its folder, an unknown class, or scores of another vocabulary;
            `place` tells where.
    """
    if not isinstance(line, dict) or not isinstance(line.get("id"), str) or not isinstance(line.get("tags"), list):
        raise UsageError(f'{place}: not a tag line; needs at least "id" and "tags"')
    check_id(line["id"], place)
    known = {name: index for index, name in enumerate(vocabulary.names)}
    scores = line.get("scores")
    values = None if scores is None else _read_scores(scores, known, vocabulary, place)
    unknown = [name for name in line["tags"] if not isinstance(name, str) or name not in known]
    if unknown:
        raise UsageError(f"{place}: tag {unknown[0]!r} is not a class of vocabulary {vocabulary.name!r}")
    indices = tuple(sorted({known[name] for name in line["tags"]}))
    size = line.get("size")
    if size is not None:
        if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
            raise UsageError(f"{place}: size {size!r} is not [height, width]")
        size = (size[0], size[1])
    path, file_size = line.get("path"), line.get("file_size")
    if not isinstance(path, str | None) or not isinstance(file_size, int | None):
        raise UsageError(f"{place}: path {path!r} is not text, or file_size {file_size!r} not a number of bytes")
    correction = None
    if line.get("correction") is not None:
        correction = _read_correction(line["correction"], known, place)
    return TagRecord(line["id"], indices, path, size, values, file_size, correction)


def _read_correction(values: Any, known: dict[str, int], place: str) -> TagCorrection:
    shape = (
        f'{place}: its correction is not {{"machine": [class], "added": {{class: by}}, "removed": {{class: by}}, '
        f'"state": "checked" or "rejected", "note": text, "by": text}}'
    )
    if not isinstance(values, dict):
        raise UsageError(shape)
    machine, state = values.get("machine", []), values.get("state")
    added, removed = values.get("added", {}), values.get("removed", {})
    note, by = values.get("note", ""), values.get("by", "")
    if not (isinstance(machine, list) and isinstance(added, dict) and isinstance(removed, dict)):
        raise UsageError(shape)
    texts = [note, by, *added.values(), *removed.values()]
    if not all(isinstance(text, str) for text in texts) or (state is not None and state not in STATES):
        raise UsageError(shape)
    for name in (*machine, *added, *removed):
        if not isinstance(name, str) or name not in known:
            raise UsageError(f"{place}: its correction names {name!r}, which is not a class")
    return TagCorrection(
        tuple(sorted({known[name] for name in machine})),
        {known[name]: by for name, by in added.items()},
        {known[name]: by for name, by in removed.items()},
        state, note, by,
    )  # fmt: skip


def _read_scores(scores: Any, known: dict[str, int], vocabulary: Vocabulary, place: str) -> np.ndarray:
    values = np.full(len(known), np.nan, np.float32)
    if isinstance(scores, list):
        if len(scores) != len(known):
            raise UsageError(
                f"{place}: {len(scores)} scores, but vocabulary {vocabulary.name!r} has {len(known)} classes"
            )
        pairs = list(enumerate(scores))
    elif isinstance(scores, dict):
        unknown = [name for name in scores if name not in known]
        if unknown:
            raise UsageError(f"{place}: score of {unknown[0]!r}, not a class of vocabulary {vocabulary.name!r}")
        pairs = [(known[name], value) for name, value in scores.items()]
    else:
        raise UsageError(f"{place}: scores must be a list, or a mapping from class to number")
    for index, value in pairs:
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= HIGHEST_SCORE:
            shown = repr(value) if len(repr(value)) < 30 else f"{repr(value)[:27]}..."
            raise UsageError(
                f"{place}: score {shown} of class {vocabulary.names[index]!r} is not a number that float32 can hold; "
                "scores lie between 0 and 1"
            )
        values[index] = value
    return values


def read_tags(path: Path | str, vocabulary: Vocabulary, *, ids: IdKind = "index") -> list[TagRecord]:
    """Read a tag file: `.jsonl` / `.json` as JSON lines, anything else as plain text.

    Args:
        ids: what the numbers of a plain file are: class indices, `vocabulary.raw_ids`, or whichever fits ("auto").

    Raises:
        UsageError: no such file, or a bad line, which is named.
    """
    path = Path(path)
    if path.is_dir() and (path / "tags.jsonl").is_file():
        path = path / "tags.jsonl"
    if path.suffix.lower() in (".jsonl", ".json"):
        records = [
            parse_tag_line(_loads(line, place), vocabulary, place) for line, place in _lines(path) if line.strip()
        ]
        _refuse_repeats((record.id for record in records), path)
        return records
    rows = read_plain(path)
    mapped = map_ids([numbers for _, numbers in rows], vocabulary, ids, str(path))
    return [TagRecord(name, numbers) for (name, _), numbers in zip(rows, mapped, strict=True)]


def _loads(line: str, place: str) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        raise UsageError(f"{place}: not valid JSON ({error})") from None


def read_plain(path: Path | str) -> list[tuple[str, tuple[int, ...]]]:
    """(id, numbers) of every line of a plain list.

    An id with blanks in it ends at a tab; one in double quotes is read as a JSON string. `#` starts a comment.

    Raises:
        UsageError: no such file, not text, a class that is no number, an id that leaves its folder or that is
            repeated; the line is named.
    """
    path, rows = Path(path), []
    for number, line in list_lines(path, ""):
        place = f"{path}, line {number}"
        name, rest, is_certain = split_line(line)
        if not is_certain:
            name, rest = [*name.split(None, 1), ""][:2]
        words = rest.split()
        bad = [word for word in words if not (word.isascii() and word.isdigit() and len(word) < LONGEST_NUMBER)]
        if bad:
            raise UsageError(f"{place}: {bad[0]!r} is not a class number; a line is `id class class`")
        check_id(name, place)
        rows.append((name, tuple(int(word) for word in words)))
    _refuse_repeats((name for name, _ in rows), path)
    return rows


def map_ids(rows: Sequence[Sequence[int]], vocabulary: Vocabulary, ids: IdKind, source: str) -> list[tuple[int, ...]]:
    """Numbers of plain lists as sorted class indices.

    Args:
        rows: numbers of each image.
        ids: "index", "raw" (`vocabulary.raw_ids`) or "auto": whichever of the two all numbers belong to.

    Raises:
        UsageError: a number that is no class, or, for "auto", numbers that fit both.
    """
    numbers = {number for row in rows for number in row}
    tables = {"index": {index: index for index in range(len(vocabulary))}}
    if vocabulary.raw_ids is not None:
        tables["raw"] = {raw: index for index, raw in enumerate(vocabulary.raw_ids)}
    if ids == "raw" and "raw" not in tables:
        raise UsageError(f"{source}: vocabulary {vocabulary.name!r} has no raw ids; its lists hold class indices")
    fitting = [kind for kind, table in tables.items() if numbers <= table.keys()]
    readings = {tuple(tables[kind][number] for number in sorted(numbers)) for kind in fitting}
    if ids == "auto" and len(readings) > 1:
        raise UsageError(f"{source}: its numbers may be class indices or raw ids; say which: index or raw")
    kind = ids if ids != "auto" else (fitting or ["index"])[0]
    strange = sorted(numbers - tables[kind].keys())
    if strange:
        hint = "" if not fitting else f"; they fit as {fitting[0]}"
        raise UsageError(
            f"{source}: class {strange[0]} is no {'raw id' if kind == 'raw' else 'index'} of vocabulary "
            f"{vocabulary.name!r} ({len(vocabulary)} classes){hint}"
        )
    return [tuple(sorted({tables[kind][number] for number in row})) for row in rows]


def write_plain(rows: Iterable[tuple[str, Sequence[int]]], stream: IO[str]) -> None:
    """Write (id, class indices) as plain text, which `read_plain` reads back: `id class class`; see `id_text`."""
    for name, indices in rows:
        text = id_text(name)
        separator = "" if text.endswith("\t") else " "
        stream.write((text + separator + " ".join(str(index) for index in indices)).rstrip(" ") + "\n")


def to_arrays(records: Sequence[TagRecord], classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Tags (n, C) bool and scores (n, C) float32 with NaN where not stored; None if no record has scores."""
    tags = np.zeros((len(records), classes), bool)
    for row, record in enumerate(records):
        tags[row, list(record.indices)] = True
    scores = [record.scores for record in records if record.scores is not None]
    if len(scores) < len(records):
        return tags, None
    return tags, np.stack(scores) if scores else np.zeros((0, classes), np.float32)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    return ((line, f"{path}, line {number}") for number, line in read_lines(path))


def _refuse_repeats(names: Iterable[str], path: Path) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{path}: image {name!r} appears twice; remove one of its lines")
        seen.add(name)

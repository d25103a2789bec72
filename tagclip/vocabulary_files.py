"""Class files: text, CSV, YAML or JSON -> entries that know where they were written."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tagclip.errors import VocabularyError

COMMENT = re.compile(r"(^|\s)#.*$")
FILE_SUFFIXES = (".txt", ".csv", ".yaml", ".yml", ".json", ".names", ".lst", ".list")
ANY_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,5}$")
DATA_SETS = ("imagenet", "lvis", "ade", "cityscapes", "pascal")  # not built in, and no class of anybody
YEAR = re.compile(r"[\W_]*\d*[A-Za-z]?")  # "voc2012", "coco_2017", "voc21", "context59"
SEPARATORS = re.compile(r"[,;\t]")
NUMBER = re.compile(r"\d{1,9}")
NUMBERED = re.compile(r"(\d{1,9})\s*[:\s]\s*([^\s:].*)")
HEADINGS = ("name", "names", "class", "classes", "class name", "label", "labels", "category", "categories")
BACKGROUND_NAMES = (
    "background", "back ground", "bg", "ignore", "ignored", "void", "unlabeled", "unlabelled", "dont care", "dontcare",
    "don't care",
)  # fmt: skip
LISTS = ("background", "cam_background", "coarse_names")
TABLES = ("prompts", "cam_prompts", "cam_prompts_reference")
NUMBERS = ("raw_ids", "coarse")
TEXTS = ("name",)


@dataclass(frozen=True)
class ClassEntry:
    """One class of a file.

    Attributes:
        name: as written.
        synonyms: further prompt names.
        place: where it stands, for messages ("line 3").
        number: id that the file gives it, None for files without ids.
    """

    name: str
    synonyms: tuple[str, ...]
    place: str
    number: int | None = None


def class_name(name: str) -> str:
    """A class name as it is kept: single blanks, composed accents (NFC)."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


def class_key(name: str) -> str:
    """What two names of one class have in common: case, composed or decomposed accents, `_` or blanks do not count."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").casefold().split())


def is_background(name: str) -> bool:
    """Whether a name means "no class": `background`, `_background_`, `__ignore__`, `bg`, `void`, `unlabeled`, ..."""
    return class_key(name).strip("-<>[]() ") in BACKGROUND_NAMES


def looks_like_file(text: str) -> bool:
    """Whether a text names a file rather than classes: it exists, or has a slash or the suffix of a file.

    Of a text with commas, only suffixes of class files count: "St.John,car/van" are two classes.
    """
    if Path(text).is_file() or text.casefold().endswith(FILE_SUFFIXES):
        return True
    return "," not in text and ("/" in text or "\\" in text or ANY_SUFFIX.search(text) is not None)


def meant_vocabulary(text: str, built_in: Sequence[str]) -> str | None:
    """The built-in vocabulary, or else the well-known data set, that a text is probably meant to be.

    That is one that differs in a letter or two, or by a year.
    """
    name = text.casefold()
    for known in (*built_in, *DATA_SETS):
        if name.startswith(known) and YEAR.fullmatch(name[len(known) :]):
            return known
    return next(iter(difflib.get_close_matches(name, built_in, n=1, cutoff=0.8)), None)


def read_class_file(text: str, suffix: str, source: str) -> tuple[list[ClassEntry], dict[str, Any]]:
    """Entries and further settings of a class file.

    Args:
        suffix: `.yaml`, `.yml`, `.json` and `.csv` are read as such, anything else as lines of text.
        source: what messages call the file.

    Returns:
        Entries in label order, and keyword arguments of `Vocabulary`. Where the file numbers its classes, and not from
        0 without gaps, the numbers are `raw_ids`.

    Raises:
        VocabularyError: what cannot be understood; place and remedy are named.
    """
    options: dict[str, Any] = {}
    if suffix in (".yaml", ".yml", ".json"):
        root = _json_tree(text, source) if suffix == ".json" else _yaml_tree(text, source)
        entries, options = _read_tree(root, source)
    else:
        entries = _read_csv(text, source) if suffix == ".csv" else text_entries(text, source)
    return _numbered(entries, options, source)


def text_entries(text: str, source: str) -> list[ClassEntry]:
    """Entries of a text file: `name`, `name: synonym, synonym` or `0: name` per line; `#` starts a comment.

    Where every line begins with a number, the numbers are ids (`0: cat`, `0 cat`), and what a comma follows is the name
    (`0: tench, Tinca tinca`).

    Raises:
        VocabularyError: a line without a name, with several names, or with an empty synonym.
    """
    if "\0" in text:
        raise VocabularyError(f"{source}: not a text file of class names")
    lines = [(f"line {number}", COMMENT.sub("", raw).strip()) for number, raw in enumerate(text.split("\n"), start=1)]
    lines = [(place, line) for place, line in lines if line]
    numbered = [(place, found) for place, line in lines if (found := NUMBERED.fullmatch(line))]
    if lines and len(numbered) == len(lines) and (len(lines) > 1 or ":" in lines[0][1]):
        return [_numbered_line(found[1], found[2], place) for place, found in numbered]
    return [_line(line, place, source) for place, line in lines]


def _numbered_line(number: str, names: str, place: str) -> ClassEntry:
    name, *synonyms = (part.strip() for part in names.split(","))
    return ClassEntry(name, tuple(filter(None, synonyms)), place, int(number))


def _line(line: str, place: str, source: str) -> ClassEntry:
    name, colon, rest = (part.strip() for part in line.partition(":"))
    synonyms = tuple(part.strip() for part in rest.split(",")) if colon else ()
    if not name:
        raise VocabularyError(f"{source}, {place}: no class name before the colon; write `name: synonym, synonym`")
    if colon and not all(synonyms):
        raise VocabularyError(f"{source}, {place}: empty synonym; write `name: synonym, synonym` or only `name`")
    if SEPARATORS.search(name):
        raise VocabularyError(
            f"{source}, {place}: {name!r} looks like several names; write one name per line, synonyms as "
            "`name: synonym, synonym` (a name with a comma goes into a YAML or JSON file)"
        )
    return ClassEntry(name, synonyms, place)


def _read_csv(text: str, source: str) -> list[ClassEntry]:
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise VocabularyError(f"{source}: not a CSV file ({error})") from None
    entries: list[ClassEntry] = []
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) > 1:
            raise VocabularyError(f"{source}, row {number}: {len(cells)} columns; leave only the one with class names")
        if entries or class_key(cells[0]) not in HEADINGS:
            entries.append(ClassEntry(cells[0], (), f"row {number}"))
    return entries


@dataclass(frozen=True)
class Node:
    """A value of a YAML or JSON file: text, a list of nodes, or a list of pairs of them (`is_map`).

    Attributes:
        other: a JSON value that is no text: number, true, null.
    """

    value: Any
    place: str
    is_map: bool = False
    other: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it is a scalar."""
        return isinstance(self.value, str)

    @property
    def items(self) -> list[Node]:
        """Nodes of a list."""
        return [] if self.is_text or self.is_map else self.value

    @property
    def pairs(self) -> dict[str, Node]:
        """Nodes of a mapping by key."""
        return {key.value: value for key, value in self.value if key.is_text} if self.is_map else {}

    def plain(self) -> Any:
        """Text, lists and dicts."""
        if self.is_map:
            return {key: value.plain() for key, value in self.pairs.items()}
        return self.value if self.is_text else [item.plain() for item in self.value]


def _yaml_tree(text: str, source: str) -> Node:
    """Scalars stay text, so that a class `no` is not False."""
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise VocabularyError(f"{source}{where}: not valid YAML ({getattr(error, 'problem', error)})") from error
    done: dict[int, Node | None] = {}

    def convert(node: yaml.Node) -> Node:
        if id(node) not in done:
            done[id(node)] = None
            place = f"line {node.start_mark.line + 1}"
            if isinstance(node, yaml.MappingNode):
                pairs = [(convert(key), convert(value)) for key, value in node.value]
                done[id(node)] = Node(pairs, place, is_map=True)
            else:
                inner = [convert(item) for item in node.value] if isinstance(node, yaml.SequenceNode) else node.value
                done[id(node)] = Node(inner, place)
        found = done[id(node)]
        if found is None:
            raise VocabularyError(f"{source}, line {node.start_mark.line + 1}: an alias that holds itself")
        return found

    return Node([], "line 1") if root is None else convert(root)


def _json_tree(text: str, source: str) -> Node:
    class Pairs(list):
        """Keys and values of an object, repeated keys kept."""

    try:
        root = json.loads(text, object_pairs_hook=Pairs)
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{source}: not valid JSON ({error})") from None

    def convert(value: Any, place: str) -> Node:
        if isinstance(value, Pairs):
            pairs = [(Node(key, f"key {key!r}"), convert(item, f"key {key!r}")) for key, item in value]
            return Node(pairs, place, is_map=True)
        if isinstance(value, list):
            return Node([convert(item, f"entry {number}") for number, item in enumerate(value, start=1)], place)
        return Node(value if isinstance(value, str) else json.dumps(value), place, other=not isinstance(value, str))

    return convert(root, "start")


def _read_tree(root: Node, source: str) -> tuple[list[ClassEntry], dict[str, Any]]:
    pairs = root.pairs
    if root.items:
        return _entries(root, source), {}
    if "classes" in pairs and (pairs["classes"].items or pairs["classes"].is_map):
        others = {key: node for key, node in pairs.items() if key != "classes"}
        options = {key: _option(key, node.plain(), f"{source}, {node.place}") for key, node in others.items()}
        return _entries(pairs["classes"], source), options
    # Files of other tools: YOLO's data.yaml, COCO JSON, Hugging Face's config.json. The rest of them is not for us.
    for key in ("names", "categories", "id2label"):
        if key in pairs and (pairs[key].items or pairs[key].is_map):
            return _entries(pairs[key], source), {}
    if pairs and (all(map(NUMBER.fullmatch, pairs)) or all(_is_number(node) for node in pairs.values())):
        return _entries(root, source), {}
    raise VocabularyError(f"{source}: no list of classes; write `classes: [name, name]`, a list, or `0: name` pairs")


def _is_number(node: Node) -> bool:
    return node.is_text and NUMBER.fullmatch(node.value) is not None


def _entries(node: Node, source: str) -> list[ClassEntry]:
    """Entries of a list of classes, of `0: name`, or of `name: 0`."""
    if not node.is_map:
        return [_entry(item, f"{source}, {item.place}") for item in node.items]
    pairs = node.value
    if all(_is_number(key) for key, _ in pairs):
        return [replace(_entry(name, f"{source}, {name.place}"), number=int(key.value)) for key, name in pairs]
    if all(key.is_text and _is_number(value) for key, value in pairs):
        return [ClassEntry(key.value, (), key.place, int(value.value)) for key, value in pairs]
    raise VocabularyError(f"{source}, {node.place}: classes are a list of names, or pairs `0: name`")


def _entry(node: Node, place: str) -> ClassEntry:
    """`name`, `name: [synonym, synonym]`, or a category of COCO: `{id: 1, name: cat}`."""
    if node.other:
        raise VocabularyError(f"{place}: class name {node.value} is not text; put it in quotes")
    if node.is_text:
        return ClassEntry(node.value, (), node.place)
    fields = node.pairs
    if "id" in fields and "name" in fields and _is_number(fields["id"]) and fields["name"].is_text:
        return ClassEntry(fields["name"].value, (), node.place, int(fields["id"].value))
    pair = node.value[0] if node.is_map and len(node.value) == 1 else None
    if pair is None or not pair[0].is_text:
        raise VocabularyError(f"{place}: a class is `name` or `name: [synonym, synonym]`")
    name, synonyms = pair
    words = [synonyms] if synonyms.is_text else synonyms.items
    if not words or not all(word.is_text and not word.other for word in words):
        raise VocabularyError(f"{place}: the synonyms of {name.value!r} are not a list of words")
    return ClassEntry(name.value, tuple(word.value for word in words), node.place)


def _numbered(
    entries: list[ClassEntry], options: dict[str, Any], source: str
) -> tuple[list[ClassEntry], dict[str, Any]]:
    """Entries in the order of their numbers, which become raw ids where they are not 0, 1, 2, ..."""
    if not any(entry.number is not None for entry in entries):
        return entries, options
    seen: dict[int, str] = {}
    for entry in entries:
        if entry.number is None:
            raise VocabularyError(f"{source}, {entry.place}: class {entry.name!r} has no number, others have one")
        if entry.number in seen:
            raise VocabularyError(f"{source}, {entry.place}: number {entry.number} is already at {seen[entry.number]}")
        seen[entry.number] = entry.place
    ordered = sorted(entries, key=_number)
    ids = [_number(entry) for entry in ordered]
    if ids != list(range(len(ids))) and "raw_ids" not in options:
        options = {**options, "raw_ids": ids}
    return ordered, options


def _number(entry: ClassEntry) -> int:
    return entry.number or 0


def _option(key: str, value: Any, place: str) -> Any:
    if key in TEXTS and isinstance(value, str):
        return value
    if key in LISTS and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if key in TABLES and isinstance(value, dict):
        return value
    if key == "has_background" and value in ("true", "false"):
        return value == "true"
    if key == "thresholds" and isinstance(value, dict):
        return {class_name(name): _threshold(name, text, place) for name, text in value.items()}
    try:
        if key in NUMBERS:
            return [int(item) for item in value]
        if key == "palette":
            return [[int(channel) for channel in colour] for colour in value]
    except (TypeError, ValueError) as error:
        raise VocabularyError(f"{place}: `{key}` must be a list of whole numbers") from error
    known = (*TEXTS, *LISTS, *TABLES, *NUMBERS, "has_background", "palette", "thresholds")
    if key in known:
        raise VocabularyError(f"{place}: `{key}` has the wrong kind of value {value!r:.60}")
    raise VocabularyError(f"{place}: unknown key {key!r}; known: classes, {', '.join(known)}")


def _threshold(name: str, text: Any, place: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise VocabularyError(f"{place}: the threshold of {name!r} is {text!r:.60}, not a number") from None


def file_tree(text: str, suffix: str, source: str) -> Node:
    """A YAML or JSON file as nodes that know where they were written; scalars stay text.

    Args:
        suffix: ".json", or anything else for YAML. source: what messages call the file.

    Raises:
        VocabularyError: not valid YAML or JSON.
    """
    return _json_tree(text, source) if suffix == ".json" else _yaml_tree(text, source)

"""Class files: lines of text or YAML -> entries that know where they were written."""

import re
from dataclasses import dataclass

import yaml

from tagclip.errors import VocabularyError

COMMENT = re.compile(r"(^|\s)#.*$")
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
    """

    name: str
    synonyms: tuple[str, ...]
    place: str


def text_entries(text: str, source: str) -> list[ClassEntry]:
    """Entries of a text file: `name` or `name: synonym, synonym` a line, `#` comments, blank lines ignored.

    Raises:
        VocabularyError: a line without a name, or an empty synonym.
    """
    if "\0" in text:
        raise VocabularyError(f"{source}: not a text file of class names")
    entries = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = COMMENT.sub("", raw).strip()
        if not line:
            continue
        name, colon, rest = line.partition(":")
        synonyms = tuple(part.strip() for part in rest.split(",")) if colon else ()
        place = f"line {number}"
        if not name.strip():
            raise VocabularyError(f"{source}, {place}: no class name before the colon; write `name: synonym, synonym`")
        if colon and not all(synonyms):
            raise VocabularyError(f"{source}, {place}: empty synonym; write `name: synonym, synonym` or only `name`")
        entries.append(ClassEntry(name.strip(), synonyms, place))
    return entries


def read_yaml(text: str, source: str) -> tuple[list[ClassEntry], dict]:
    """Entries and further settings of a YAML file; scalars stay text, so that a class `no` is not False.

    Returns:
        Entries, and keyword arguments of `Vocabulary`.

    Raises:
        VocabularyError: not YAML, no list of classes, an unknown key, or a value of the wrong kind.
    """
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
        content = yaml.load(text, Loader=yaml.BaseLoader)  # builds only text, lists and mappings
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise VocabularyError(f"{source}{where}: not valid YAML ({getattr(error, 'problem', error)})") from error
    if isinstance(content, list):
        return _entries(root, source), {}
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise VocabularyError(f"{source}: no list of classes; write `classes: [name, name]`")
    nodes = {key.value: value for key, value in root.value}
    options = {}
    for key, value in content.items():
        if key != "classes":
            options[key] = _option(key, value, f"{source}, line {nodes[key].start_mark.line + 1}")
    return _entries(nodes["classes"], source), options


def _entries(sequence: yaml.SequenceNode, source: str) -> list[ClassEntry]:
    entries = []
    for node in sequence.value:
        place = f"line {node.start_mark.line + 1}"
        if isinstance(node, yaml.ScalarNode):
            entries.append(ClassEntry(node.value, (), place))
            continue
        pair = node.value[0] if isinstance(node, yaml.MappingNode) and len(node.value) == 1 else None
        if pair is None or not isinstance(pair[0], yaml.ScalarNode):
            raise VocabularyError(f"{source}, {place}: a class is `name` or `name: [synonym, synonym]`")
        name, synonyms = pair
        nodes = synonyms.value if isinstance(synonyms, yaml.SequenceNode) else [synonyms]
        if not all(isinstance(item, yaml.ScalarNode) for item in nodes):
            raise VocabularyError(f"{source}, {place}: the synonyms of {name.value!r} are not a list of words")
        entries.append(ClassEntry(name.value, tuple(item.value for item in nodes), place))
    return entries


def _option(key: str, value, place: str):
    if key in TEXTS and isinstance(value, str):
        return value
    if key in LISTS and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if key in TABLES and isinstance(value, dict):
        return value
    if key == "has_background" and value in ("true", "false"):
        return value == "true"
    try:
        if key in NUMBERS:
            return [int(item) for item in value]
        if key == "palette":
            return [[int(channel) for channel in colour] for colour in value]
    except (TypeError, ValueError) as error:
        raise VocabularyError(f"{place}: `{key}` must be a list of whole numbers") from error
    known = (*TEXTS, *LISTS, *TABLES, *NUMBERS, "has_background", "palette")
    if key in known:
        raise VocabularyError(f"{place}: `{key}` has the wrong kind of value {value!r:.60}")
    raise VocabularyError(f"{place}: unknown key {key!r}; known: classes, {', '.join(known)}")

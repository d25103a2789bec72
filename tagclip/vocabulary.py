"""Class names with all that goes with them: prompt names, background words, palette, label ids."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.arguments import as_names
from tagclip.errors import VocabularyError
from tagclip.stored_files import as_local_file
from tagclip.text_files import read_text
from tagclip.vocabulary_files import (
    ClassEntry,
    class_key,
    class_name,
    is_background,
    looks_like_file,
    meant_vocabulary,
    read_class_file,
)

# Words for "everything else" that fit any photo: the papers' list for COCO.
GENERIC_BACKGROUND = (
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway",
    "railroad", "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley", "bridge",
)  # fmt: skip
CONTEXT_TOKENS = 77  # of CLIP's text towers, start and end included
SAFE_NAME_BYTES = 48  # a token covers at least a byte, so a name this short fits any template without counting

PromptNames = Mapping[str, str | Sequence[str]] | Sequence[str | Sequence[str]]


@dataclass(frozen=True, init=False)
class Vocabulary:
    """The target classes of a run, in label order.

    Args:
        names: C class names; unique (ignoring case), not empty.
        prompts: tagging prompt names (synonyms are averaged), by class name or one entry per class; default the name.
        background: words that take part in the tagging softmax but never become a tag. Default: generic words that are
            not classes themselves. () for none.
        cam_prompts: prompt name of each class for class activation maps, where CLIP-ES fuses synonyms into one
            string; by class name or one entry per class; default the tagging prompts joined by commas.
        cam_prompts_reference: what the published implementation uses where that differs; by class name.
        cam_background: background words for class activation maps; default `background`, or "background" without one.
        palette: colours, (C + 1, 3) uint8 RGB, row 0 is the background; default the VOC colour map.
        name: of the vocabulary.
        has_background: True: mask label 0 is background and class c is c + 1. False: class c is label c.
        raw_ids: ids of the classes in the data set's own annotations, where these have gaps.
        coarse: super-class index of each class, for a coarser evaluation (COCO-Stuff-27).
        coarse_names: names of the super-classes.
        thresholds: class name -> threshold of its tags, for a rule that has none of its own
            (`TagRuleConfig.class_thresholds`); no part of the vocabulary's identity.

    Raises:
        VocabularyError: names that are missing, duplicate, empty or longer than CLIP's 77 tokens; tables that name
            an unknown class or have the wrong length; one string where a list of class names is needed.

    Example:
        >>> Vocabulary(["cat", "dog"], prompts={"dog": ["dog", "puppy"]}).prompts
        (('cat',), ('dog', 'puppy'))
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    background: tuple[str, ...]
    cam_prompts: tuple[str, ...]
    cam_prompts_reference: tuple[str, ...]
    cam_background: tuple[str, ...]
    palette: np.ndarray = field(compare=False, repr=False)
    name: str
    has_background: bool
    raw_ids: tuple[int, ...] | None
    coarse: tuple[int, ...] | None
    coarse_names: tuple[str, ...] | None
    thresholds: Mapping[str, float] = field(compare=False, repr=False)

    def __init__(
        self,
        names: Sequence[str],
        *,
        prompts: PromptNames | None = None,
        background: Sequence[str] | None = None,
        cam_prompts: Mapping[str, str] | Sequence[str] | None = None,
        cam_prompts_reference: Mapping[str, str] | Sequence[str] | None = None,
        cam_background: Sequence[str] | None = None,
        palette: Any = None,
        name: str = "custom",
        has_background: bool = True,
        raw_ids: Sequence[int] | None = None,
        coarse: Sequence[int] | None = None,
        coarse_names: Sequence[str] | None = None,
        thresholds: Mapping[str, float] | None = None,
    ):
        if isinstance(names, str):
            raise VocabularyError(
                f"class names {names!r}: a list of names is needed, not one string; Vocabulary([{names!r}]) has this "
                f"one class, Vocabulary.load({names!r}) takes a built-in list, a file, or names separated by commas"
            )
        entries = [ClassEntry(entry, (), f"entry {number}") for number, entry in enumerate(names, start=1)]
        names = _checked_names(entries, name)
        own = [(entry,) for entry in names]
        groups = tuple(
            (entry,) if isinstance(entry, str) else tuple(entry)
            for entry in _per_class(prompts, names, own, "prompts")
        )
        for one, group in zip(names, groups, strict=True):
            _check_prompts(one, group, f"vocabulary {name!r}")
        if background is None:
            taken = {class_key(prompt) for group in groups for prompt in group} | {class_key(one) for one in names}
            background = [word for word in GENERIC_BACKGROUND if word not in taken]
        background = as_names(background, "background")
        cam = _per_class(cam_prompts, names, [",".join(group) for group in groups], "cam_prompts")
        for attribute, value in {
            "names": names,
            "prompts": groups,
            "background": background,
            "cam_prompts": tuple(cam),
            "cam_prompts_reference": tuple(_per_class(cam_prompts_reference, names, cam, "cam_prompts_reference")),
            "cam_background": as_names(
                background or ("background",) if cam_background is None else cam_background, "cam_background"
            ),
            "palette": _palette(palette, len(names) + 1, name),
            "name": name,
            "has_background": has_background,
            "raw_ids": _ids(raw_ids, names, "raw_ids"),
            "coarse": _ids(coarse, names, "coarse"),
            "coarse_names": None if coarse_names is None else as_names(coarse_names, "coarse_names"),
            "thresholds": _thresholds(thresholds or {}, names, name),
        }.items():
            object.__setattr__(self, attribute, value)

    @classmethod
    def built_in(cls) -> tuple[str, ...]:
        """Names that `named` knows."""
        files = (resources.files("tagclip") / "vocabularies").iterdir()
        return tuple(sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml")))

    @classmethod
    def named(cls, name: str) -> Vocabulary:
        """A built-in vocabulary: "voc" (20), "coco" (80), "cocostuff" (171), "context" (59)."""
        if name not in cls.built_in():
            raise VocabularyError(
                f"vocabulary {name!r}: unknown, one of {', '.join(cls.built_in())}; or give a file of class names"
            )
        file = resources.files("tagclip") / "vocabularies" / f"{name}.yaml"
        entries, options = read_class_file(file.read_text(encoding="utf-8"), ".yaml", f"{name}.yaml")
        return cls._from_entries(entries, f"{name}.yaml", {"name": name, **options})

    @classmethod
    def from_file(cls, path: Path | str) -> Vocabulary:
        """From a file of class names, a path or an address (`s3://bucket/classes.txt`).

        Text, one class per line: `name`, or `name: synonym, synonym`; `#` starts a comment. `.csv`: one column, with or
        without a heading. `.yaml`, `.yml`, `.json`: a list of names (or of `name: [synonyms]`), or a mapping with
        `classes` and any keyword argument of this class. Files of other tools are understood where they number their
        classes (`0: name`, `name: 0`) or hold them under `names`, `categories` or `id2label`: the order is that of
        the numbers, which become `raw_ids` unless they are 0, 1, 2, ...

        Raises:
            VocabularyError: no such file, not text, or a bad line, which is named with the remedy.
        """
        with as_local_file(path, "class file") as file:
            text = read_text(file, "class file", error=VocabularyError)
        entries, options = read_class_file(text, file.suffix.lower(), str(path))
        return cls._from_entries(entries, str(path), {"name": file.stem, **options})

    @classmethod
    def load(cls, source: Vocabulary | str | Path | Sequence[str]) -> Vocabulary:
        """From whatever a user gives: a vocabulary, a list of names, or a text, which is, in this order,

        - the name of a built-in vocabulary, in any case: `voc`;
        - a file: it exists, or looks like one by a slash or a suffix: `classes.txt`;
        - class names separated by commas: `cat,dog`, and `cat,` for one;
        - one class name: `person`; but what looks like a built-in vocabulary misspelled (`vocc`, `voc2012`) is refused.

        Raises:
            VocabularyError: none of these; the remedy is named.
        """
        if isinstance(source, Vocabulary):
            return source
        if isinstance(source, Path):
            return cls.from_file(source)
        if not isinstance(source, str):
            return cls(list(source))
        text = source.strip()
        if text.casefold() in cls.built_in():
            return cls.named(text.casefold())
        if looks_like_file(text):
            return cls.from_file(text)
        names = [name.strip() for name in text.split(",")]
        if len(names) > 1 and not names[-1]:
            names.pop()
        if meant := meant_vocabulary(text, cls.built_in()):
            known = f"did you mean {meant!r}? " if meant in cls.built_in() else ""
            raise VocabularyError(
                f"vocabulary {text!r}: unknown, {known}one of {', '.join(cls.built_in())}; or give a file of class "
                f"names, or names separated by commas (`{text},` is a class of that name)"
            )
        return cls(names)

    @classmethod
    def _from_entries(cls, entries: list[ClassEntry], source: str, options: dict) -> Vocabulary:
        names = _checked_names(entries, source)
        prompts = {name: (name, *entry.synonyms) for name, entry in zip(names, entries, strict=True) if entry.synonyms}
        return cls(names, **{**options, "prompts": {**prompts, **options.get("prompts", {})}})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for manifests; `from_dict` makes an equal vocabulary of it. Thresholds stand in a run's rule."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "thresholds"}
        return {**json.loads(json.dumps({**values, "palette": None})), "palette": self.palette.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that `to_dict` was called on."""
        return cls(**values)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of everything that scores and masks depend on; not of name and palette."""
        parts = [
            self.names, self.prompts, self.background, self.cam_prompts, self.cam_prompts_reference,
            self.cam_background, self.has_background, self.coarse,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def label_count(self) -> int:
        """Number of mask labels: the classes, and the background if there is one."""
        return len(self.names) + int(self.has_background)

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """Names by mask label: "background" first, if there is one."""
        return ("background", *self.names) if self.has_background else tuple(self.names)

    @cached_property
    def label_palette(self) -> np.ndarray:
        """Colours by mask label, (labels, 3) uint8 RGB: `palette`, without its first row if there is no background."""
        return self.palette if self.has_background else self.palette[1:]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """Index of a class name, 0..C-1.

        Raises:
            VocabularyError: not a class of this vocabulary.
        """
        if name not in self._index:
            raise VocabularyError(f"class {name!r}: not in vocabulary {self.name!r} ({len(self)} classes)")
        return self._index[name]


def voc_palette(size: int) -> np.ndarray:
    """The VOC colour map: bits of the label spread over the channels, (size, 3) uint8 RGB, row 0 black."""
    labels = np.arange(size)
    colours = np.zeros((size, 3), np.int64)
    for shift in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> (3 * shift + channel)) & 1) << (7 - shift)
    return colours.astype(np.uint8)


def _palette(colours: Any, size: int, vocabulary: str) -> np.ndarray:
    palette = voc_palette(size) if colours is None else np.array(colours, np.int64)
    if palette.shape != (size, 3) or ((palette < 0) | (palette > 255)).any():
        raise VocabularyError(f"vocabulary {vocabulary!r}: the palette is not {size} colours of 3 values in 0..255")
    palette = palette.astype(np.uint8)
    palette.setflags(write=False)
    return palette


def _thresholds(given: Mapping[str, float], names: Sequence[str], vocabulary: str) -> dict[str, float]:
    for key, value in given.items():
        if key not in names:
            raise VocabularyError(f"vocabulary {vocabulary!r}: thresholds: {key!r} is not a class")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise VocabularyError(f"vocabulary {vocabulary!r}: the threshold of {key!r} is {value!r}, no finite number")
    return {key: float(value) for key, value in given.items()}


def _checked_names(entries: list[ClassEntry], source: str) -> tuple[str, ...]:
    if not entries:
        raise VocabularyError(f"{source}: no class name in it; give at least one")
    seen: dict[str, ClassEntry] = {}
    for entry in entries:
        if not isinstance(entry.name, str):
            raise VocabularyError(f"{source}, {entry.place}: class name {entry.name!r} is not text; put it in quotes")
        key = class_key(entry.name)
        if not key:
            raise VocabularyError(f"{source}, {entry.place}: empty class name; remove it or write a name")
        if key in seen:
            name, first = entry.name.strip(), seen[key].name.strip()
            same = "" if class_name(first).casefold() == class_name(name).casefold() else f" as {first!r}"
            raise VocabularyError(
                f"{source}, {entry.place}: class {name!r} is already there{same}, {seen[key].place}; remove one"
            )
        if is_background(entry.name):
            raise VocabularyError(
                f"{source}, {entry.place}: {entry.name.strip()!r} is no class but what belongs to none, and would take "
                "the tags of all; leave it out (in masks it is label 0 by itself)"
            )
        _check_prompts(entry.name, (entry.name, *entry.synonyms), f"{source}, {entry.place}")
        seen[key] = entry
    for entry in entries:
        for synonym in entry.synonyms:
            other = seen.get(class_key(synonym))
            if other is not None and other is not entry:
                raise VocabularyError(
                    f"{source}, {entry.place}: synonym {synonym!r} is also the class there, {other.place}; remove one"
                )
    return tuple(class_name(entry.name) for entry in entries)


def _check_prompts(name: str, prompts: Sequence[str], place: str) -> None:
    if not prompts:
        raise VocabularyError(f"{place}: class {name!r} has no prompt name; give at least one")
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise VocabularyError(f"{place}: class {name!r} has the empty synonym {prompt!r}; remove it")
        if len(prompt.encode()) <= SAFE_NAME_BYTES:
            continue
        tokens = _prompt_tokens(prompt)
        if tokens > CONTEXT_TOKENS:
            raise VocabularyError(
                f"{place}: {prompt[:40]!r}... makes prompts of {tokens} tokens, CLIP reads {CONTEXT_TOKENS}; shorten it"
            )


def _prompt_tokens(name: str) -> int:
    # Needs open_clip, which takes seconds to import and which short names never need.
    from tagclip.clip.prompts import CAM_TEMPLATE, TAGGING_TEMPLATES
    from tagclip.clip.tokens import count_tokens

    return max(count_tokens(template.replace("{}", name)) for template in (*TAGGING_TEMPLATES, CAM_TEMPLATE))


def _per_class(table: Any, names: tuple[str, ...], default: Sequence[Any], what: str) -> list[Any]:
    if table is None:
        return list(default)
    if isinstance(table, Mapping):
        unknown = [name for name in table if name not in names]
        if unknown:
            raise VocabularyError(f"{what}: {unknown[0]!r} is not a class; use a name of the class list")
        return [table.get(name, fallback) for name, fallback in zip(names, default, strict=True)]
    if isinstance(table, str) or len(table) != len(names):
        given = repr(table) if isinstance(table, str) else f"{len(table)} entries"
        raise VocabularyError(f"{what}: {given} for {len(names)} classes; give one per class, or a mapping")
    return list(table)


def _ids(values: Sequence[int] | None, names: tuple[str, ...], what: str) -> tuple[int, ...] | None:
    if values is None:
        return None
    if len(values) != len(names):
        raise VocabularyError(f"{what}: {len(values)} ids for {len(names)} classes; give one per class")
    return tuple(int(value) for value in values)

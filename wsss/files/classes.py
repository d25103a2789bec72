"""Which classes do the masks of a folder hold? Every folder of results says so, in `classes.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tagclip.errors import RunError, UsageError
from tagclip.vocabulary import Vocabulary
from tagclip.vocabulary_files import is_background
from wsss.files.provenance import read_record, write_record
from wsss.files.run_files import run_vocabulary

CLASSES_FILE = "classes.json"


def write_classes(folder: Path, names: Sequence[str], palette: Any, vocabulary: Vocabulary | None = None) -> None:
    """Writes the record of a folder of masks.

    Args:
        names: by label, a background included.
        palette: (labels, 3) colours in 0..255.
        vocabulary: that the labels are of, where it is known.

    Raises:
        RunError: full disk or unwritable folder.
    """
    colours = [[int(value) for value in colour] for colour in palette]
    record: dict[str, Any] = {"labels": {str(label): name for label, name in enumerate(names)}, "palette": colours}
    if vocabulary is not None:
        record["vocabulary"] = vocabulary.to_dict()
    write_record(folder / CLASSES_FILE, record)


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """`write_classes` of masks whose vocabulary is known."""
    write_classes(folder, vocabulary.label_names, vocabulary.label_palette, vocabulary)


def read_classes(folder: Path) -> Vocabulary | None:
    """Classes by the folder's own record, None without one.

    Raises:
        RunError: the record is damaged. VocabularyError: its labels are no class names.
    """
    path, remedy = folder / CLASSES_FILE, "delete it and name the classes"
    if not path.is_file():
        return None
    record = read_record(path, remedy)
    try:
        if "vocabulary" in record:
            return Vocabulary.from_dict(record["vocabulary"])
        names = [record["labels"][str(label)] for label in range(len(record["labels"]))]
        return label_vocabulary(names, record["palette"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: damaged ({error!r}); {remedy}") from None


def label_vocabulary(names: Sequence[str], palette: Sequence[Sequence[int]]) -> Vocabulary:
    """The vocabulary of masks with these labels, of which the first may be a background.

    Raises:
        VocabularyError: labels that are no class names.
    """
    background = is_background(names[0])
    colours = palette if background else [(0, 0, 0), *palette]
    return Vocabulary(list(names[background:]), palette=colours, has_background=background)


def folder_vocabulary(folder: Path) -> Vocabulary | None:
    """Classes of a folder of results: by its own record or that of the folder around it, or of the run that these are.

    Raises:
        RunError: a damaged record.
    """
    for place in (folder, folder.absolute().parent):
        found = read_classes(place) or run_vocabulary(place)
        if found is not None:
            return found
    return None


def require_vocabulary(folder: Path, choice: str | Sequence[str] | Path | Vocabulary | None) -> Vocabulary:
    """The classes that the user names, or else those of the folder. Nothing is guessed.

    Raises:
        UsageError: neither. VocabularyError: from `Vocabulary`.
    """
    if choice is not None:
        return Vocabulary.load(choice)
    found = folder_vocabulary(folder)
    if found is None:
        raise UsageError(
            f"{folder}: nothing says which classes it holds (no {CLASSES_FILE}, no run around it); name them "
            f"with --classes: {', '.join(Vocabulary.built_in())}, a class file, or names with commas"
        )
    return found

"""The published experiments: their data, their commands and their figures, as `published.yaml` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from tagclip.errors import UsageError

FILE = "published.yaml"


@dataclass(frozen=True)
class Figure:
    """A published figure and where the measured one is found.

    Attributes:
        name: what it is, "mIoU with CRF".
        file, key: JSON file below the output folder, and the dotted key of the figure in it, a share of 1.
        published: in points (0..100); None where none is on record.
        source: paper or file that it was published in.
        masks: folder of the masks that it scores, below the output folder; None: it scores tags.
        coarse: classes are merged into their coarse groups.
    """

    name: str
    file: str
    key: str
    published: float | None
    source: str
    masks: str | None = None
    coarse: bool = False


@dataclass(frozen=True)
class Part:
    """One part of an experiment.

    Attributes:
        name: "tags".
        list: which of the experiment's lists of images it works on.
        steps: command lines of `tagclip`, without the program's name, with placeholders.
        figures: what they measure.
        optional: it is done only when it is asked for by name.
        validation: list that a trained model is scored on, None without one.
    """

    name: str
    list: str
    steps: tuple[str, ...]
    figures: tuple[Figure, ...]
    optional: bool = False
    validation: str | None = None


@dataclass(frozen=True)
class ImageSet:
    """A list of images of a data set: a file of ids below the data folder, or every photo of a folder.

    Attributes:
        images: how many it has.
        path: of the list; None: `every` names the folder.
        digest: SHA-256 of its sorted ids, each followed by a line break; None where it is not on record.
    """

    images: int
    path: str | None = None
    every: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Experiment:
    """A data set with its published figures.

    Attributes:
        name: "voc2012". title: in words. folder: where its data usually lie. vocabulary: built-in name.
        lists: name -> list of images.
        photos: {"folder", "suffix"}.
        labels: where true tags come from: {"voc": folder, "suffix"} or {"coco": file}; "or": "masks" takes the classes
            of the true masks where that is missing.
        masks: {"folder"}, {"instances": COCO file} or {"pixelmaps": folder of COCO-Stuff}; None without true masks.
        parts: name -> part.
    """

    name: str
    title: str
    folder: str
    vocabulary: str
    lists: Mapping[str, ImageSet]
    photos: Mapping[str, str]
    labels: Mapping[str, str]
    masks: Mapping[str, str] | None
    parts: Mapping[str, Part]

    def chosen(self, names: tuple[str, ...] | None) -> list[Part]:
        """The parts of these names; without names all that are not optional.

        Raises:
            UsageError: no such part.
        """
        if names is None:
            return [part for part in self.parts.values() if not part.optional]
        if unknown := [name for name in names if name not in self.parts]:
            raise UsageError(f"--parts {unknown[0]}: {self.name} has the parts {', '.join(self.parts)}")
        return [self.parts[name] for name in dict.fromkeys(names)]


@cache
def _published() -> dict[str, Any]:
    return yaml.safe_load(files("wsss.reproduction").joinpath(FILE).read_text(encoding="utf-8"))


def tolerance() -> float:
    """Largest difference, in points, that counts as the published figure."""
    return float(_published()["tolerance"])


def experiment_names() -> list[str]:
    """Names of all experiments."""
    return [name for name, entry in _published().items() if isinstance(entry, dict)]


def find_experiment(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        UsageError: no such experiment.
    """
    if name not in experiment_names():
        raise UsageError(f"{name}: no such experiment; there are {', '.join(experiment_names())}")
    entry = dict(_published()[name])
    entry["lists"] = {key: ImageSet(**values) for key, values in entry["lists"].items()}
    entry["parts"] = {
        key: Part(**{
            **values, "name": key, "steps": tuple(values["steps"]),
            "figures": tuple(Figure(**figure) for figure in values["figures"]),
        })
        for key, values in entry["parts"].items()
    }  # fmt: skip
    return Experiment(**{"masks": None, **entry, "name": name})

"""The page of all constants, docs/constants.md, made from the settings themselves: `python -m wsss.constants FILE`.

Names, defaults and what a setting does come from the dataclasses and their docstrings, what a data set has instead from
the shipped configs. A line of an "Attributes" section reads `name: text` or, with the paper's symbol, `name (t): text`.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagclip.config import TagCLIPConfig
from tagclip.thresholds import CalibrationConfig
from wsss.config import MaskConfig
from wsss.configs import list_configs, read_config
from wsss.dense.dense_config import DenseConfig
from wsss.distillation.distillation_config import DistillationConfig
from wsss.pipeline.recipe import dataset_settings
from wsss.segmentation.class_balance import ClassBalance
from wsss.segmentation.image_weights import ImageWeights
from wsss.segmentation.self_training import SelfTrainingConfig

LONGEST_LIST = 8
HEAD = """# Constants

Every constant of the method, made from the code by `python -m wsss.constants docs/constants.md`.
**Default** is the preset `default`; **reference** is shown where the preset `reference`, the published code with its
quirks, has another value. **Data sets** lists the shipped configs (`tagclip configs`) that set another value.
Change one for a run with `--set`, for instance `--set tagging.cwr.threshold=0.4`, or in a config of your own.
"""
PARTS = (
    ("Tags", "Stage one; `--set tagging.NAME=VALUE`, `tagging = dict(...)` in a config.", "tagging"),
    ("Masks", "Stage two; `--set masks.NAME=VALUE`, `masks = dict(...)` in a config.", "masks"),
    ("Training-free segmentation", "Maps of a strategy (`--method`); `--set dense.NAME=VALUE`.", "dense"),
    ("Training", "Top-level entries of a config of `configs/segmentation`; `--set train.NAME=VALUE`.", "train"),
    ("Tagger", "Of `tagclip train-tagger`; `--set tagger.NAME=VALUE`.", "tagger"),
    ("Calibration", "Of `tagclip.thresholds`, which finds thresholds per class; in Python.", "calibration"),
)


@dataclass(frozen=True)
class Attribute:
    """What a docstring says of a field: the paper's symbol, "" if none, and the text."""

    symbol: str
    text: str


def attributes_of(kind: type) -> dict[str, Attribute]:
    """The "Attributes" section of a class's docstring, by field name.

    Raises:
        LookupError: a field of the dataclass that its docstring does not name.
    """
    lines = (inspect.getdoc(kind) or "").splitlines()
    start = lines.index("Attributes:") + 1 if "Attributes:" in lines else len(lines)
    section = []
    for line in lines[start:]:
        if line and not line.startswith(" "):
            break
        section.append(line.strip() if line.startswith("        ") else f"\n{line.strip()}")
    found = {}
    for entry in " ".join(section).split("\n"):
        match = re.match(r"([\w, ]+?)(?: \((.+?)\))?: (.+)", entry.strip())
        if match:
            first, *others = match[1].split(", ")
            found[first] = Attribute(match[2] or "", match[3][:1].upper() + match[3][1:])
            found.update({name: Attribute(match[2] or "", f"With `{first}`.") for name in others})
    missing = [field.name for field in dataclasses.fields(kind) if field.name not in found]
    if missing:
        raise LookupError(f"{kind.__name__}: its docstring does not say what {', '.join(missing)} is")
    return found


def page() -> str:
    """The page as Markdown."""
    defaults, reference, elsewhere = _defaults(), _reference(), _elsewhere()
    lines = [HEAD]
    for title, intro, part in PARTS:
        lines += [f"## {title}", "", intro, ""]
        for prefix, kind in _kinds(part):
            lines += _table(prefix, kind, defaults, reference, elsewhere)
    return "\n".join(lines).rstrip() + "\n"


def _kinds(part: str) -> Iterator[tuple[str, type]]:
    """Dotted prefix and dataclass of every table of a part."""
    if part == "train":
        yield from (("self_training", SelfTrainingConfig), ("class_balance", ClassBalance))
        yield "train_dataloader.dataset.image_weight", ImageWeights
        return
    kinds: dict[str, Any] = {
        "tagging": TagCLIPConfig, "masks": MaskConfig, "dense": DenseConfig, "tagger": DistillationConfig,
        "calibration": CalibrationConfig,
    }  # fmt: skip
    kind = kinds[part]
    yield part, kind
    if part in ("tagging", "masks", "tagger"):
        for field, value in vars(kind()).items():
            if dataclasses.is_dataclass(value):
                yield f"{part}.{field}", type(value)


def _table(
    prefix: str,
    kind: type,
    defaults: Mapping[str, Any],
    reference: Mapping[str, Any],
    elsewhere: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    attributes = attributes_of(kind)
    title = (inspect.getdoc(kind) or kind.__name__).splitlines()[0]
    lines = [f"### `{prefix}`: {title}", ""]
    lines += ["| name | symbol | default | reference | data sets | what it does |", "|---|---|---|---|---|---|"]
    for field in dataclasses.fields(kind):
        name, attribute = f"{prefix}.{field.name}", attributes[field.name]
        if name not in defaults:  # a group of settings, which has a table of its own
            continue
        default = defaults[name]
        quirk = reference.get(name, default)
        others = (f"{where} {_shown(values[name])}" for where, values in elsewhere.items()
                  if values.get(name, default) != default)  # fmt: skip
        cells = (f"`{field.name}`", attribute.symbol, _shown(default), _shown(quirk) if quirk != default else "",
                 ", ".join(others), attribute.text)  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _flat(prefix: str, values: Any) -> dict[str, Any]:
    """{"tagging.cwr.threshold": 0.5, ...} of a dataclass, nested ones included."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(values):
        value, name = getattr(values, field.name), f"{prefix}.{field.name}"
        flat.update(_flat(name, value) if dataclasses.is_dataclass(value) else {name: value})
    return flat


def _defaults() -> dict[str, Any]:
    return {
        **_flat("tagging", TagCLIPConfig()), **_flat("masks", MaskConfig()), **_flat("dense", DenseConfig()),
        **_flat("self_training", SelfTrainingConfig()), **_flat("class_balance", ClassBalance()),
        **_flat("train_dataloader.dataset.image_weight", ImageWeights()), **_flat("calibration", CalibrationConfig()),
        **_flat("tagger", DistillationConfig()),
    }  # fmt: skip


def _reference() -> dict[str, Any]:
    return {**_flat("tagging", TagCLIPConfig.preset("reference")), **_flat("masks", MaskConfig.preset("reference"))}


def _elsewhere() -> dict[str, dict[str, Any]]:
    """Values of the shipped configs of data sets, by name of the config."""
    found: dict[str, dict[str, Any]] = {}
    for name in list_configs("masks"):
        recipe = dataset_settings(name, options={"vocabulary": "cat,dog"})  # constants do not depend on the classes
        found[f"`{name}`"] = {**_flat("tagging", recipe.tagging), **_flat("masks", recipe.masks)}
    # Not those of one method's published protocol, dense/scclip/voc21: docs/dense.md has a table of them.
    for name in (name for name in list_configs("dense") if name.count("/") == 1):
        settings = DenseConfig.from_dict(read_config(name).model.dense.to_dict())
        values = _flat("dense", settings)
        del values["dense.tagging"]  # those of `masks`, as the table of `tagging` shows
        found[f"`{name}`"] = values
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        text = f"{len(value)} values" if len(value) > LONGEST_LIST else ", ".join(map(str, value))
        return text or "none"
    if isinstance(value, str):
        return f'"{value}"'
    return "none" if value == {} else str(value)


def main() -> None:
    """Writes the page into the file that the command line names."""
    parser = argparse.ArgumentParser(description="Writes docs/constants.md: python -m wsss.constants docs/constants.md")
    parser.add_argument("page", type=Path, help="the file to write")
    parser.parse_args().page.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

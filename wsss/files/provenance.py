"""Is this the same work? What made a folder stands in it, and another maker is refused with what differs."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import json
import pprint
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tagclip.errors import RunError, UsageError
from tagclip.text_files import json_text, parse_json
from tagclip.version import __version__
from wsss.files.atomic import atomic_file, disk_errors

MASK_SETTINGS = "masks.json"
PACKAGES = ("torch", "open_clip_torch", "numpy", "pillow", "opencv-python", "pydensecrf2")
SHOWN_DIFFERENCES = 5
LONGEST_VALUE = 40


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One phrase per setting that differs, "crf.iterations 10 there, 5 here", in the order of `wanted`."""
    old, new = flatten(there), flatten(wanted)
    keys = [*new, *(key for key in old if key not in new)]
    return [f"{key} {_shown(old, key)} there, {_shown(new, key)} here" for key in keys if old.get(key) != new.get(key)]


def part_of(values: Mapping[str, Any], names: Sequence[str], *, inside: bool) -> dict[str, Any]:
    """The flat settings that lie inside (or outside) of the named ones: "tagging.rule" holds "tagging.rule.top_k"."""
    return {
        key: value
        for key, value in flatten(values).items()
        if any(key == name or key.startswith(f"{name}.") for name in names) == inside
    }


def refuse_other(
    place: str,
    what: str,
    there: Mapping[str, Any],
    wanted: Mapping[str, Any],
    remedy: str = "choose another folder, or --overwrite",
) -> None:
    """Lets the same work pass, and names what differs of other work.

    Args:
        place: the folder, as the user named it: "--out runs/mine".
        what: what it is to that work: "belongs to a run".
        there: JSON-ready settings of that work. wanted: those of the work that is asked for.

    Raises:
        RunError: they differ.
    """
    changed = differences(there, wanted)
    if changed:
        more = f" and {len(changed) - SHOWN_DIFFERENCES} more" if len(changed) > SHOWN_DIFFERENCES else ""
        raise RunError(
            f"{place}: {what} with other settings: {'; '.join(changed[:SHOWN_DIFFERENCES])}{more}; {remedy}"
        )


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path}: damaged ({error}); {remedy}") from None


def write_record(path: Path, values: Mapping[str, Any], *, indent: int = 1) -> None:
    """Writes a JSON object, whole or not at all.

    Raises:
        RunError: full disk or unwritable folder.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, path.parent, durable=True) as file:
        file.write((json_text(values, indent=indent) + "\n").encode())


def claim_folder(
    out: Path, record: str, settings: Mapping[str, Any], *, overwrite: bool, name: str, what: str = "holds masks"
) -> None:
    """Makes a folder of results and writes what makes it, or makes sure that its results are of these settings.

    Args:
        record: name of the file that says what made the folder.
        settings: plain values, nested; what the results depend on.
        overwrite: PNG files of other settings are removed.
        name: what messages call the folder.
        what: how they say that there is something: "holds masks".

    Raises:
        UsageError: a folder with other files.
        RunError: results of other settings and no `overwrite`, or a damaged record.
    """
    path, wanted = out / record, json.loads(json.dumps(settings))
    if path.is_file():
        there = read_record(path, "choose another folder")
        if not overwrite:
            refuse_other(name, what, there, wanted)
        elif differences(there, wanted):
            with disk_errors(out):
                for picture in out.rglob("*.png"):
                    picture.unlink()
    elif out.exists() and any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise UsageError(f"{name}: holds other files; choose a folder that is new or empty")
    write_record(path, wanted)


def claim_masks(out: Path, settings: Mapping[str, Any], *, overwrite: bool, name: str) -> None:
    """`claim_folder` of a folder of masks, which says in `masks.json` what made it."""
    claim_folder(out, MASK_SETTINGS, settings, overwrite=overwrite, name=name)


def installed_versions() -> dict[str, str]:
    """Versions of this project and of the packages that results depend on; absent ones are left out."""
    versions = {"tagclip-wsss": __version__}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def config_text(config: Mapping[str, Any]) -> str:
    """A config as Python assignments, which mmengine's Config.fromfile reads back."""
    lines = [f"{key} = {pprint.pformat(value, width=110, sort_dicts=False)}" for key, value in config.items()]
    return "\n".join(lines) + "\n"


def config_values(path: Path) -> dict[str, Any]:
    """What `config_text` wrote, read without running it.

    Raises:
        RunError: no such file, or something else than assignments of plain values.
    """
    try:
        values = {}
        for line in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
                raise ValueError(f"line {line.lineno} assigns no value")
            values[line.targets[0].id] = ast.literal_eval(line.value)
        return values
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise RunError(f"{path}: not the settings of a run ({error})") from None


def _shown(values: Mapping[str, Any], key: str) -> str:
    text = repr(values.get(key))
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."

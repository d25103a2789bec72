"""Folders of masks that say how their masks were made, so that those of two settings are never mixed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tagclip.errors import RunError, UsageError
from wsss.artefacts import atomic_file, disk_errors
from wsss.run import flatten

SETTINGS = "masks.json"


def claim_masks(out: Path, settings: Mapping[str, Any], *, overwrite: bool, name: str, prefix: str = "") -> None:
    """Makes the folder and writes `masks.json`, or makes sure that its masks are of these settings.

    Args:
        settings: plain values, nested; what the masks depend on.
        overwrite: masks of other settings are removed.
        name: what messages call the folder. prefix: what they put before a setting.

    Raises:
        UsageError: a folder with other files.
        RunError: masks of other settings and no `overwrite`, or a damaged `masks.json`.
    """
    path, wanted = out / SETTINGS, json.loads(json.dumps(settings))
    if path.is_file():
        old, new = flatten(_read(path)), flatten(wanted)
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if changed and not overwrite:
            raise RunError(
                f"{name}: holds masks with {prefix}{changed[0]} {old.get(changed[0])}, now {new.get(changed[0])}; "
                "choose another folder, or --overwrite"
            )
        if changed:
            with disk_errors(out):
                for mask in out.rglob("*.png"):
                    mask.unlink()
    elif out.exists() and any(out.iterdir()):
        raise UsageError(f"{name}: holds other files; choose a folder that is new or empty")
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, out) as file:
        file.write((json.dumps(wanted, indent=1) + "\n").encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error}); choose another folder") from None

"""The configs that ship with the package: found by name from anywhere, and read."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.errors import TagclipError, UsageError

if TYPE_CHECKING:
    from mmengine.config import Config

CLOSE_ENOUGH = 0.6
NAMES_SHOWN = 3
LOADER, OUR_LOADER = "LoadAnnotations", "LoadLabelMap"  # of masks: mmseg's and ours


def configs_folder() -> Path:
    """Where the shipped configs are: inside an installed package, or `configs/` of a clone."""
    package = Path(__file__).parent
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def list_configs(kind: str | None = None) -> list[str]:
    """Names of the shipped configs, sorted: "dense/voc21", "masks/voc2012", ...

    Args:
        kind: only those of one folder: "dense", "demo", "masks", "segmentation" or "tagging".
    """
    root = configs_folder()
    names = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.py"))
    public = (name for name in names if not any(part.startswith("_") for part in name.split("/")))
    return sorted(name for name in public if kind is None or name.split("/")[0] == kind)


def config_title(name: str) -> str:
    """What a shipped config is for: the first line of its text, without comment marks and quotes."""
    text = find_config(name).read_text(encoding="utf-8")
    return text.split("\n", 1)[0].strip('#" ')


def find_config(name: str | Path, *, option: str = "--config") -> Path:
    """The file of a config.

    Args:
        name: path of a config file, or name of a shipped one ("masks/voc2012", with or without ".py").
        option: what messages call it.

    Raises:
        UsageError: neither; the message names the shipped configs that are spelled like it.
    """
    path = Path(name)
    if path.is_file():
        return path
    wanted = str(name).removesuffix(".py")
    shipped = configs_folder() / f"{wanted}.py"
    if wanted and not path.is_absolute() and ".." not in path.parts and shipped.is_file():
        return shipped
    near = _near_names(wanted)
    advice = f"did you mean {' or '.join(near)}?" if near else "`tagclip configs` lists those that ship"
    raise UsageError(f"{option} {name}: neither a file nor a shipped config; {advice}")


def config_path(name: str) -> str:
    """Absolute path of a shipped config, for configs that inherit from it.

    mmengine evaluates the expression after `_base_ =` by itself, before anything else in the file, so a config of your
    own begins with

        _base_ = __import__("wsss").config_path("masks/voc2012")

    Raises:
        UsageError: no such config.
    """
    return str(find_config(name, option="_base_").resolve())


def read_config(name: str | Path, *, option: str = "--config") -> Config:
    """A config, read by mmengine.

    Args:
        name, option: see `find_config`.

    Raises:
        UsageError: no such config, or one that Python or mmengine refuses.
    """
    from mmengine.config import Config

    path = find_config(name, option=option)
    try:
        # mmengine writes the config into every checkpoint; beautifying it takes longer than saving a small model.
        return Config.fromfile(str(path), format_python_code=False)
    except TagclipError:
        raise
    except Exception as error:  # a config is Python and may raise anything
        cause = error.__cause__ or error
        first_line = next(iter(str(cause).splitlines()), "")
        raise UsageError(f"{option} {name}: {type(cause).__name__}: {first_line}") from error


def _near_names(wanted: str) -> list[str]:
    """Shipped names that have the same last part ("voc2012"), or else are spelled alike."""
    names = list_configs()
    last = wanted.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    same = [name for name in names if name.rsplit("/", 1)[-1] == last]
    if same:
        return same[:NAMES_SHOWN]
    parts = {name.rsplit("/", 1)[-1]: name for name in names}
    alike = difflib.get_close_matches(wanted, names, NAMES_SHOWN, CLOSE_ENOUGH)
    return alike or [parts[part] for part in difflib.get_close_matches(last, parts, NAMES_SHOWN, CLOSE_ENOUGH)]


def read_masks_alike(settings: Any, ignored: int) -> None:
    """Puts `LoadLabelMap` in the place of mmseg's `LoadAnnotations`, in place.

    Args:
        settings: a part of a config.
        ignored: label of pixels that do not count.
    """
    if isinstance(settings, dict):
        if settings.get("type") == LOADER:
            for option in [name for name in settings if name != "type"]:
                settings.pop(option)
            settings["type"], settings["ignore_index"] = OUR_LOADER, ignored
        for value in settings.values():
            read_masks_alike(value, ignored)
    elif isinstance(settings, list | tuple):
        for value in settings:
            read_masks_alike(value, ignored)

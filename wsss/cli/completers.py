"""What a shell offers after options whose values are names or files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

CLASS_LISTS = ("voc", "coco", "cocostuff", "context")


def config_names(prefix: str, **_: Any) -> list[str]:
    """Names of shipped configs, and files."""
    from wsss.configs import list_configs

    return _names_and_files(list_configs(), prefix)


def class_lists(prefix: str, **_: Any) -> list[str]:
    """Built-in class lists, and files."""
    return _names_and_files(CLASS_LISTS, prefix)


def model_names(prefix: str, **_: Any) -> list[str]:
    """Models that are often used, and files."""
    return _names_and_files(("demo", "ViT-B-16", "ViT-B-32", "ViT-L-14"), prefix)


def _names_and_files(names: Iterable[str], prefix: str) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return [*(name for name in names if name.startswith(prefix)), *FilesCompleter()(prefix)]


COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "config": config_names,
    "train": config_names,
    "classes": class_lists,
    "model": model_names,
}

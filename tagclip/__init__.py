"""Stage one: TagCLIP image tags from a frozen CLIP."""

from importlib import import_module
from typing import Any

# Public name -> module. Imported on first use: what only needs settings or images never loads torch for it.
_PUBLIC = {
    "TagCLIP": "tagclip.tagger",
    "TagCLIPConfig": "tagclip.config",
    "TagResult": "tagclip.tagger",
    "Vocabulary": "tagclip.vocabulary",
    "load_clip": "tagclip.clip",
}

__all__ = ["TagCLIP", "TagCLIPConfig", "TagResult", "Vocabulary", "load_clip"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tagclip.requirements import explained_imports

    with explained_imports():
        module = import_module(_PUBLIC[name])
    return getattr(module, name)

"""Stage one: TagCLIP image tags from a frozen CLIP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tagclip.version import __version__ as __version__

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP, load_clip, wrap_clip
    from tagclip.config import TagCLIPConfig
    from tagclip.errors import TagclipError
    from tagclip.tagger import TagCLIP, TagResult
    from tagclip.vocabulary import Vocabulary

# Public name -> module. Imported on first use: what only needs settings or images never loads torch for it.
_PUBLIC = {
    "FrozenCLIP": "tagclip.clip",
    "TagCLIP": "tagclip.tagger",
    "TagCLIPConfig": "tagclip.config",
    "TagResult": "tagclip.tagger",
    "TagclipError": "tagclip.errors",
    "Vocabulary": "tagclip.vocabulary",
    "load_clip": "tagclip.clip",
    "wrap_clip": "tagclip.clip",
}

__all__ = [
    "FrozenCLIP",
    "TagCLIP",
    "TagCLIPConfig",
    "TagResult",
    "TagclipError",
    "Vocabulary",
    "load_clip",
    "wrap_clip",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tagclip.requirements import explained_imports

    with explained_imports():
        module = import_module(_PUBLIC[name])
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

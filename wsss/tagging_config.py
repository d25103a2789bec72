"""Configuration of a tagging run: an mmengine config file, written over by the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tagclip.config import TagCLIPConfig
from tagclip.errors import UsageError
from tagclip.settings import overlay
from tagclip.vocabulary import Vocabulary


@dataclass(frozen=True)
class ModelSettings:
    """Which model: see `tagclip.clip.load_clip`."""

    name: str = "ViT-B-16"
    pretrained: str | None = "openai"
    dtype: str = "float32"


@dataclass(frozen=True)
class ImageSettings:
    """Which images: see `tagclip.images.find_images`."""

    source: str | None = None
    root: str | None = None


@dataclass(frozen=True)
class WorkSettings:
    """How the work is shared out; nothing in the results depends on it."""

    workers: int = 2


@dataclass(frozen=True)
class TaggingRunConfig:
    """All settings of a tagging run.

    Attributes:
        vocabulary: built-in name, class file, or class names separated by commas.
        preset: "default" or "reference".
        tagging: fields of `TagCLIPConfig` over the preset's.
        top_k: keep only the k best scores of an image; None keeps all.
        out: run folder.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    vocabulary: str = "voc"
    preset: str = "default"
    tagging: dict = field(default_factory=dict)
    images: ImageSettings = field(default_factory=ImageSettings)
    work: WorkSettings = field(default_factory=WorkSettings)
    top_k: int | None = None
    out: str = "runs/tags"

    def load_vocabulary(self) -> Vocabulary:
        """The vocabulary that `vocabulary` names."""
        names = [name.strip() for name in self.vocabulary.split(",")]
        return Vocabulary(names) if len(names) > 1 else Vocabulary.load(self.vocabulary)

    def tagger_config(self, vocabulary: Vocabulary) -> TagCLIPConfig:
        """The preset for this vocabulary with `tagging` written over it."""
        return TagCLIPConfig.from_dict(self.tagging, TagCLIPConfig.preset(self.preset, vocabulary.name))


RunConfig = TypeVar("RunConfig", bound=TaggingRunConfig)


def load_run_config(path: Path, options: Mapping[str, Any], base: RunConfig) -> RunConfig:
    """Read a config file and write dotted options ("tagging.rule.threshold": 0.4) over it.

    Args:
        base: what the file is written over, usually `TaggingRunConfig()`.

    Raises:
        UsageError: no such file, not a config, an unknown field, or a value of the wrong type.
    """
    from mmengine.config import Config

    if not path.is_file():
        raise UsageError(f"--config {path}: no such file")
    try:
        loaded = Config.fromfile(str(path))
        loaded.merge_from_dict(dict(options))
        values = loaded.to_dict()
    except Exception as error:  # a config file is Python and may raise anything
        raise UsageError(f"--config {path}: {type(error).__name__}: {error}") from error
    return overlay(base, values, "config")


def command_line_options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of `tools/generate_tags.py` as dotted config fields; those not given are left out."""
    named = {
        "model.name": args.model,
        "model.pretrained": args.pretrained,
        "model.dtype": args.dtype,
        "vocabulary": args.classes or args.vocabulary,
        "preset": args.preset,
        "images.source": args.images,
        "images.root": args.image_root,
        "work.workers": args.workers,
        "top_k": args.top_k,
        "out": args.out,
        "tagging.batch_size": args.batch_size,
        "tagging.rule.rule": args.threshold_rule,
        "tagging.rule.threshold": args.threshold,
        "tagging.rule.top_k": args.tags_per_image,
    }
    given = {name: value for name, value in named.items() if value is not None}
    if args.images is not None and args.image_root is None:
        given["images.root"] = None  # the config's root belongs to the config's list
    return {**given, **(args.set or {})}

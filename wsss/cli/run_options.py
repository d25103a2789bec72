"""Options of a run as fields of its config, and of a training as fields of its request."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tagclip.errors import UsageError
from wsss.cli.options import OPTIONS, SWITCH

if TYPE_CHECKING:
    from wsss.pipeline.recipe import Recipe
    from wsss.pipeline.run_config import TaggingRunConfig

RunConfig = TypeVar("RunConfig", bound="TaggingRunConfig")

FIELDS = {
    "model": "model.name",
    "pretrained": "model.pretrained",
    "dtype": "model.dtype",
    "quick_gelu": "model.quick_gelu",
    "classes": "vocabulary",
    "preset": "preset",
    "images": "images.source",
    "image_root": "images.root",
    "workers": "work.workers",
    "mask_workers": "work.mask_workers",
    "keep_scores": "top_k",
    "score_floor": "score_floor",
    "out": "out",
    "layout": "layout",
    "batch_size": "tagging.batch_size",
    "scorer": "tagging.scorer",
    "tag_rule": "tagging.rule.rule",
    "tag_threshold": "tagging.rule.threshold",
    "class_thresholds": "class_thresholds",
    "tags_per_image": "tagging.rule.top_k",
    "at_least_one": "tagging.rule.at_least_one",
    "tags": "tags",
    "tag_ids": "tag_ids",
    "method": "method",
    "refine": "masks.refiner",
    "confidence": "masks.confidence",
    "save_confidence": "save_confidence",
    "scales": "masks.views.scales",
    "flip": "masks.views.flip",
}
TRAINING_FIELDS = {
    "val": "val",
    "ground_truth": "ground_truth",
    "iterations": "iterations",
    "rounds": "rounds",
    "backbone_weights": "pretrained",
    "seed": "seed",
    "amp": "amp",
}
TRAINING = tuple(name.replace("_", "-") for name in TRAINING_FIELDS)
DEFAULT_CONFIG = "masks/custom"
CLASSES = (
    "names separated by commas, a class file, or a built-in list (voc, coco, cocostuff, context); or --config with a "
    "data set's config"
)
PREFIX = "train."  # of settings of a training in --set


def run_fields(args: argparse.Namespace, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted config fields of the options that were given; `settings` of --set win."""
    given = {
        field: str(value) if isinstance(value, Path) else value
        for name, field in FIELDS.items()
        if is_given(name, value := getattr(args, name, None))
    }
    if args.images is not None and args.image_root is None and not _is_list(args.images):
        given["images.root"] = None  # the config's root belongs to its own list, and to other lists of its ids
    return {**given, **settings}


def require_own_data(args: argparse.Namespace, settings: Mapping[str, Any]) -> None:
    """Without --config, images and classes must be named: a config for one's own data cannot know them.

    Raises:
        UsageError: one of them is not.
    """
    if args.config is not None:
        return
    if args.images is None and "images.source" not in settings:
        raise UsageError("--images: needed, a folder, a glob, an image or a list; or --config with a data set's config")
    if args.classes is None and "vocabulary" not in settings and not names_tagger(args, settings):
        raise UsageError(f"--classes: needed, {CLASSES}")


def names_tagger(args: argparse.Namespace, settings: Mapping[str, Any]) -> bool:
    """Whether the model is a trained tagger's file, which has its own classes.

    Raises:
        UsageError: with an option that only a CLIP has.
    """
    from wsss.distillation.tagger_files import is_tagger_file

    if not hasattr(args, "scorer"):  # a command without tags of its own
        return False
    if not is_tagger_file(args.model):
        return is_tagger_file(settings.get("model.tagger"))
    for name in ("pretrained", "quick_gelu", "scorer"):
        if getattr(args, name, None) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: of a CLIP, but --model {args.model} is a trained tagger")
    return True


def place_tagger(args: argparse.Namespace, settings: Mapping[str, Any], run: RunConfig) -> RunConfig:
    """The settings with a trained tagger in its place, where the command line names one.

    Raises:
        UsageError: other classes than the tagger has, or options that only a CLIP has.
    """
    from wsss.pipeline.run_config import with_tagger

    named = names_tagger(args, settings)
    own = named and args.classes is None and args.config is None and "vocabulary" not in settings
    return with_tagger(run, own_classes=own)


def data_settings(args: argparse.Namespace) -> Recipe:
    """Constants and classes of a data set, for commands that make no run: --config, --classes, --preset.

    Raises:
        UsageError: neither a config nor classes are named, or they are wrong.
    """
    if args.config is None and args.classes is None:
        raise UsageError(f"--classes: needed, {CLASSES}")
    from wsss.pipeline.recipe import dataset_settings

    other = {} if args.classes is None else {"vocabulary": args.classes}
    return dataset_settings(args.config or DEFAULT_CONFIG, getattr(args, "preset", None), other)


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the run, and those of a training, whose keys begin with `train.`, without that beginning."""
    training = {key.removeprefix(PREFIX): value for key, value in settings.items() if key.startswith(PREFIX)}
    return {key: value for key, value in settings.items() if not key.startswith(PREFIX)}, training


def training_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training where nothing else can be set.

    Raises:
        UsageError: a key that does not begin with `train.`.
    """
    other, training = split_settings(settings)
    if other:
        key = next(iter(other))
        raise UsageError(f"--set {key}: settings of a training begin with {PREFIX}; write --set {PREFIX}{key}=...")
    return training


def training_fields(args: argparse.Namespace) -> dict[str, Any]:
    """The parsed options as fields of `wsss.segmentation.train_settings.TrainRequest`."""
    return {field: getattr(args, name) for name, field in TRAINING_FIELDS.items()}


def given_training_options(args: argparse.Namespace) -> list[str]:
    """The flags of a training that the command line holds."""
    return [f"--{name.replace('_', '-')}" for name in TRAINING_FIELDS if is_given(name, getattr(args, name))]


def is_given(name: str, value: Any) -> bool:
    """Whether the command line held an option; 0 is a value, and so is the `no` of an option that has one."""
    return value is not None and not (value is False and OPTIONS[name.replace("_", "-")].kind == SWITCH)


def _is_list(source: str) -> bool:
    from tagclip.image_lists import LIST_SUFFIXES
    from tagclip.stored_files import is_url

    return Path(source).suffix.lower() in LIST_SUFFIXES and (is_url(source) or Path(source).is_file())

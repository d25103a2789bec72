"""A folder of images labelled from Python: what `tagclip run` and `tagclip tag` do, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tagclip.arguments import as_names
from tagclip.vocabulary import Vocabulary
from wsss.files.run_folder import RunFolder
from wsss.pipeline.mask_run import MaskRun, Watch
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import MaskRunConfig, RunConfig, TaggingRunConfig, load_run_config, with_tagger
from wsss.pipeline.tag_run import TagRun, TagWatch
from wsss.pipeline.watching import watch_nothing

Classes = str | Path | Sequence[str] | Vocabulary
Images = str | Path | Sequence[str | Path]


def label_folder(
    images: Images | None = None,
    classes: Classes | None = None,
    out: str | Path | None = None,
    *,
    config: str | Path = "masks/custom",
    model: str | Path | None = None,
    pretrained: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    method: str | Sequence[str] | None = None,
    refine: str | None = None,
    tags: str | Path | None = None,
    class_thresholds: str | Path | None = None,
    corrections: str | Path | None = None,
    save_confidence: bool | None = None,
    image_root: str | Path | None = None,
    device: str | None = None,
    limit: int | None = None,
    cache_dir: str | Path | None = None,
    overwrite: bool = False,
    strict: bool = False,
    watch: Watch = watch_nothing,
) -> RunFolder:
    """Tags, class maps and masks of a collection, into a run folder; the same call resumes a run that was cut.

    A call with another rule, other thresholds, photos or corrections brings a finished folder up to date: tags come
    from the stored scores, and only images whose tags change go through the model again.

    Args:
        images: folder (searched recursively), glob, image, split list (.txt), or a list of paths.
        classes: class names, a built-in name ("voc", "coco", "cocostuff", "context"), a class file, or a vocabulary.
        out: the run folder.
        config: where all settings come from that are not given here: name of a shipped config ("masks/voc2012") or
            path of one of your own.
        model, pretrained: see `tagclip.load_clip`; a `model` that is the file of a trained tagger makes the tags.
        settings: fields of the config by dotted name, {"tagging.rule.threshold": 0.4}.
        preset: "default", or "reference" for the published implementations' behaviour in every detail.
        method: where class maps come from: "cam", or a training-free strategy ("gclip"); several: their mean.
        refine: how masks are refined: "crf", "pamr", "par", "sam" or "none".
        tags: take the tags from this file instead of the model: tags.jsonl, a run folder, a plain list, VOC XML, COCO.
        class_thresholds: file of thresholds by class name, see `tagclip.threshold_files.read_thresholds`.
        corrections: file of what a person has said of this run, see `wsss.files.corrections`.
        save_confidence: write the confidence of each mask, too; see `RunReader.confidence`.
        image_root: ids of images of a split list are relative to it.
        device: of the model; None: the accelerator if there is one.
        limit: only the first images.
        cache_dir: where text classifiers are kept between runs; None keeps nothing.
        overwrite: drop the run that is in `out`.
        strict: an image that fails makes the call fail, after all others are done.
        watch: called with the number of images and of those that have masks already; its context gives a function
            that is called after every step, to show progress.

    Returns:
        The run folder, closed, to be read: `records()`, `mask(id)`, `maps(id)`, `vocabulary`, `counts`, `failed()`.

    Raises:
        UsageError: no images or classes, an unknown field or value, weights or a device that are not there.
        RunError: the folder of another run, a full disk; every image failed, or any with `strict`.

    Example:
        >>> run = label_folder("photos", ["cat", "dog"], "runs/mine")  # doctest: +SKIP
        >>> run.counts["masks"], run.counts["tags"]  # doctest: +SKIP
        (120, {'cat': 71, 'dog': 58})
    """
    options = {
        **_options(model, pretrained, preset, image_root, out), "masks.refiner": refine, "tags": _text(tags),
        "class_thresholds": _text(class_thresholds), "save_confidence": save_confidence,
        "method": None if method is None else as_names(method, "method"),
    }  # fmt: skip
    run = _configured(MaskRunConfig(), config, options, settings, images)
    run, vocabulary = _with_classes(run, classes)
    recipe = Recipe.resolve(run, vocabulary)
    mask_run = MaskRun(
        recipe, device=device, limit=limit, cache_dir=cache_dir, corrections=corrections, overwrite=overwrite
    )
    return mask_run.execute(strict=strict, watch=watch)


def tag_folder(
    images: Images | None = None,
    classes: Classes | None = None,
    out: str | Path | None = None,
    *,
    config: str | Path = "tagging/custom",
    model: str | Path | None = None,
    pretrained: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    class_thresholds: str | Path | None = None,
    image_root: str | Path | None = None,
    device: str | None = None,
    limit: int | None = None,
    cache_dir: str | Path | None = None,
    overwrite: bool = False,
    strict: bool = False,
    watch: TagWatch = watch_nothing,
) -> RunFolder:
    """Tags of a collection alone, into a run folder; arguments, result and errors are those of `label_folder`.

    Args:
        watch: called with the number of images; its context gives a function that is called with the number of images
            finished since its last call.

    Example:
        >>> run = tag_folder("photos", ["cat", "dog"], "runs/tags")  # doctest: +SKIP
        >>> {record.id: record.indices for record in run.records()}  # doctest: +SKIP
        {'a': (0,), 'b': (0, 1)}
    """
    options = _options(model, pretrained, preset, image_root, out)
    options["class_thresholds"] = _text(class_thresholds)
    run = _configured(TaggingRunConfig(), config, options, settings, images)
    run, vocabulary = _with_classes(run, classes)
    tag_run = TagRun(
        run, vocabulary=vocabulary, device=device, limit=limit, cache_dir=cache_dir, overwrite=overwrite
    )
    return tag_run.execute(strict=strict, watch=watch)


def _options(
    model: str | Path | None,
    pretrained: str | Path | None,
    preset: str | None,
    image_root: str | Path | None,
    out: str | Path | None,
) -> dict[str, Any]:
    return {
        "model.name": _text(model), "model.pretrained": _text(pretrained), "preset": preset,
        "images.root": _text(image_root), "out": _text(out),
    }  # fmt: skip


def _configured(
    base: RunConfig,
    config: str | Path,
    options: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    images: Images | None,
) -> RunConfig:
    given = {name: value for name, value in options.items() if value is not None}
    run = load_run_config(config, {**given, **(settings or {})}, base)
    if images is None:
        return run
    source = str(images) if isinstance(images, str | Path) else tuple(str(path) for path in images)
    return replace(run, images=replace(run.images, source=source))


def _with_classes(run: RunConfig, classes: Classes | None) -> tuple[RunConfig, Vocabulary]:
    """The run with its classes named in words, for the record, and the vocabulary itself."""
    if classes is None or isinstance(classes, str | Path):
        run = run if classes is None else replace(run, vocabulary=str(classes))
        run = with_tagger(run, own_classes=classes is None)
        return run, run.load_vocabulary()
    vocabulary = classes if isinstance(classes, Vocabulary) else Vocabulary(classes)
    run = with_tagger(replace(run, vocabulary=",".join(vocabulary.names)), own_classes=False)
    return run, vocabulary


def _text(value: str | Path | None) -> str | None:
    return None if value is None else str(value)

"""Configuration of a run: a config file, shipped or your own, written over by options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tagclip.config import ImageConfig, TagCLIPConfig
from tagclip.errors import UsageError
from tagclip.image_lists import ImageFile
from tagclip.settings import overlay
from tagclip.stored_files import is_url, local_place
from tagclip.tag_files import IdKind, KeptScores
from tagclip.threshold_files import read_thresholds
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.configs import read_config
from wsss.distillation.tagger_files import is_tagger_file
from wsss.files.photo_sources import find_photos
from wsss.pipeline.plan_table import names_digest

if TYPE_CHECKING:
    import torch

    from tagclip.clip import FrozenCLIP

CAM, EXCEL = "cam", "excel"
STUDENT_SETTINGS = ("image", "rule", "batch_size", "batch_patches")  # of TagCLIPConfig, for a trained tagger


@dataclass(frozen=True)
class ModelSettings:
    """Which model: see `tagclip.clip.load_clip`.

    Attributes:
        tagger: file of a trained tagger (`tagclip train-tagger`) that makes the tags; a run of tags alone then needs no
            CLIP. None: TagCLIP makes them.
    """

    name: str = "ViT-B-16"
    pretrained: str | None = "openai"
    dtype: str = "float32"
    quick_gelu: bool | None = None
    tagger: str | None = None

    def load(self, device: torch.device | str | None = None) -> FrozenCLIP:
        """The model, on a device; None: the accelerator if there is one.

        Raises:
            UsageError: a device or weights that are not there.
        """
        from tagclip.clip import load_clip
        from tagclip.devices import resolve_device

        return load_clip(
            self.name, self.pretrained, device=resolve_device(device), dtype=self.dtype, quick_gelu=self.quick_gelu
        )


@dataclass(frozen=True)
class ImageSettings:
    """Which images: see `wsss.files.photo_sources.find_photos`."""

    source: str | tuple[str, ...] | None = None
    root: str | None = None

    def find(self, out: str) -> Sequence[ImageFile]:
        """The images, in order; those of the output folder `out` are none.

        Raises:
            UsageError: none, or no source.
        """
        if self.source is None:
            raise UsageError("--images: needed, a folder, a glob, an image or a list")
        return find_photos(self.source, root=self.root, exclude=out)


@dataclass(frozen=True)
class TagWork:
    """How the work is shared out; nothing in the results depends on it.

    Attributes:
        workers: decoding threads.
    """

    workers: int = 2


@dataclass(frozen=True)
class TaggingRunConfig:
    """All settings of a tagging run.

    Attributes:
        vocabulary: built-in name, class file, or class names separated by commas.
        preset: "default", or "reference" with the quirks of the published code; the constants are the same.
        tagging: fields of `TagCLIPConfig` over the preset's: the data set's constants, and others.
        top_k: store only the k best scores of an image (and those of its tags); None for all.
        score_floor: store only scores above this one (and those of its tags); None for all.
        class_thresholds: file of thresholds by class name, in place of those of `tagging.rule` and of the class file.
        layout: how results are kept: "files", or "tar" for shards, see `wsss.files.result_shards`. Nothing in them
            depends on it.
        out: run folder.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    vocabulary: str = "voc"
    preset: str = "default"
    tagging: dict = field(default_factory=dict)
    images: ImageSettings = field(default_factory=ImageSettings)
    work: TagWork = field(default_factory=TagWork)
    top_k: int | None = None
    score_floor: float | None = None
    class_thresholds: str | None = None
    layout: str = "files"
    out: str = "runs/tags"

    @property
    def kept_scores(self) -> KeptScores:
        """Which scores of an image are stored."""
        return KeptScores(self.top_k, self.score_floor)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict for the run folder's config.py; not where that folder lies, as it can be moved.

        Paths are absolute, so that it means the same anywhere.
        """
        values = dataclasses.asdict(self)
        del values["out"]
        images, model = values["images"], values["model"]
        source = images["source"]
        images["source"] = tuple(map(_absolute, source)) if isinstance(source, tuple) else _absolute(source)
        images["root"] = _absolute(images["root"])
        values["class_thresholds"] = _absolute(self.class_thresholds)
        for place, key in ((model, "name"), (model, "pretrained"), (model, "tagger"), (values, "vocabulary")):
            if place[key] is not None and Path(place[key]).exists():
                place[key] = _absolute(place[key])
        if model["tagger"] is None:
            del model["tagger"]  # older runs know no such setting
        return values

    def load_vocabulary(self) -> Vocabulary:
        """The vocabulary that `vocabulary` names; a trained tagger's file has its own."""
        if is_tagger_file(self.vocabulary):
            from wsss.distillation.student import read_card

            return read_card(self.vocabulary).classes
        return Vocabulary.load(self.vocabulary)

    def tagger_config(self, vocabulary: Vocabulary) -> TagCLIPConfig:
        """The preset with `tagging` written over it, and the class thresholds of their file or of the class file.

        Raises:
            UsageError: an unknown field or value, or class thresholds that do not fit the vocabulary.
        """
        config = TagCLIPConfig.from_dict(self.tagging, TagCLIPConfig.preset(self.preset))
        rule = config.rule.or_thresholds(vocabulary.thresholds)
        if self.class_thresholds is not None:
            rule = read_thresholds(self.class_thresholds, vocabulary.names).applied_to(config.rule)
        rule.for_classes(vocabulary.names)
        return replace(config, rule=rule)


@dataclass(frozen=True)
class MaskWork(TagWork):
    """How the work is shared out; nothing in the results depends on it.

    Attributes:
        mask_workers: CRF processes; None: one a core.
        mask_queue: jobs that may wait for a mask worker, for each worker.
    """

    mask_workers: int | None = None
    mask_queue: int = 8


@dataclass(frozen=True)
class MaskRunConfig(TaggingRunConfig):
    """All settings of a run that makes masks; see `TaggingRunConfig` for the others.

    Attributes:
        tags: take the tags from here instead of the model: tags.jsonl, a plain list, VOC XML folder, COCO JSON.
        tag_ids: what the numbers of a plain list are: "index", "raw" or "auto".
        masks: fields of `MaskConfig` over the preset's: the data set's constants, and others.
        method: where class maps come from: "cam", "excel", or a training-free strategy of `wsss.dense`; several: their
            mean.
        dense: fields of `DenseConfig` for the strategies.
        raw_cams: keep the maps before the affinity too, to look at them.
        save_confidence: write `confidence/<id>.png` with each mask, see `RunReader.confidence`.
    """

    work: MaskWork = field(default_factory=MaskWork)
    tags: str | None = None
    tag_ids: IdKind = "auto"
    masks: dict = field(default_factory=dict)
    method: str | tuple[str, ...] = CAM
    dense: dict = field(default_factory=dict)
    raw_cams: bool = True
    save_confidence: bool = False
    out: str = "runs/masks"

    def to_dict(self) -> dict[str, Any]:
        """See `TaggingRunConfig.to_dict`."""
        methods = tuple(_absolute(name) if Path(name).is_file() else name for name in self.sources)
        method = methods[0] if isinstance(self.method, str) else methods
        return {**super().to_dict(), "tags": _absolute(self.tags), "method": method}

    @property
    def sources(self) -> tuple[str, ...]:
        """Where class maps come from, one name or several."""
        return (self.method,) if isinstance(self.method, str) else self.method

    def mask_config(self) -> MaskConfig:
        """The preset with `masks` written over it."""
        return MaskConfig.from_dict(self.masks, MaskConfig.preset(self.preset))


def _absolute(path: str | None) -> str | None:
    """An absolute path (or glob) from one that is relative to the working directory; an address stays as it is."""
    return path if path is None or is_url(path) else str(Path(local_place(path)).absolute())


RunConfig = TypeVar("RunConfig", bound=TaggingRunConfig)


def tagging_identity(config: TagCLIPConfig, *, dtype: str, by_student: bool) -> dict[str, Any]:
    """The settings that tags depend on; those of a trained tagger on few of TagCLIP's, `recheck` on those of int8."""
    values = config.identity()
    if by_student:
        return {name: values[name] for name in STUDENT_SETTINGS}
    return {**values, "recheck": config.recheck} if dtype == "int8" else values


def run_identity(
    model: Mapping[str, Any],
    vocabulary: Vocabulary,
    config: TagCLIPConfig,
    files: Sequence[ImageFile],
    *,
    kept: KeptScores | None = None,
    by_student: bool = False,
) -> dict[str, Any]:
    """Everything that the bytes of a tagging run depend on, JSON-ready, for `RunFolder.open`.

    Args:
        model: of `wsss.pipeline.run_model`.
        kept: which scores of an image are stored; None for all.
        by_student: scores are a trained tagger's, see `tagging_identity`.
    """
    return {
        "stage": "tags",
        "tagging": tagging_identity(config, dtype=model["dtype"], by_student=by_student),
        "top_k": None if kept is None else kept.best if kept.above is None else asdict(kept),
        "model": dict(model),
        "vocabulary": vocabulary.to_dict(),
        "images": {"count": len(files), "digest": names_digest(files)},
    }


def check_same_input(tagging: ImageConfig, masks: ImageConfig) -> None:
    """Both stages must see the same tensor for one trunk pass to serve both.

    Raises:
        UsageError: they prepare images differently.
    """
    for name in ("apply_exif", "max_long_side"):
        ours, theirs = getattr(tagging, name), getattr(masks, name)
        if ours != theirs:
            raise UsageError(
                f"tagging.image.{name} is {ours}, masks.image.{name} is {theirs}: in one pass both stages see the same "
                "image; set them equal"
            )


def with_tagger(run: RunConfig, *, own_classes: bool) -> RunConfig:
    """The settings with a trained tagger in its place, where `model.name` names one's file.

    `model.name` and `pretrained` then become those of the CLIP that it has learned from, which makes the class maps of
    a run that has any.

    Args:
        own_classes: nobody has named classes, so that they are the tagger's.

    Raises:
        UsageError: a file that is no tagger's, or other classes than the tagger has.
    """
    model = run.model
    if is_tagger_file(model.name):
        from wsss.distillation.student import read_card

        teacher = read_card(model.name).teacher
        model = replace(
            model, name=teacher.name, pretrained=teacher.pretrained, quick_gelu=teacher.quick_gelu, tagger=model.name
        )
    if model.tagger is None:
        return run
    from wsss.distillation.student import read_card
    from wsss.distillation.student_tagger import require_classes

    run = replace(run, model=model, vocabulary=model.tagger if own_classes else run.vocabulary)
    own = read_card(model.tagger).classes
    require_classes(own.names, run.load_vocabulary().names, Path(model.tagger).name)
    return run


def load_run_config(name: str | Path, options: Mapping[str, Any], base: RunConfig) -> RunConfig:
    """Read a config and write dotted options ("tagging.rule.threshold": 0.4) over it.

    Args:
        name: of a shipped config ("masks/voc2012"), or path of a config file.
        base: what the config is written over, usually `TaggingRunConfig()`.

    Raises:
        UsageError: no such config, one that cannot be read, an unknown field, or a value of the wrong type.
    """
    config = read_config(name)
    try:
        config.merge_from_dict(dict(options))
    except (KeyError, TypeError, IndexError, ValueError, AssertionError) as error:
        raise UsageError(f"--set {' '.join(options)}: {error}") from None
    return overlay(base, config.to_dict(), "config")

"""Configuration of a run that makes masks: that of a tagging run and what comes after it."""

from __future__ import annotations

import argparse
import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.config import TagCLIPConfig
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.tagging_config import TaggingRunConfig
from wsss.tagging_config import WorkSettings as DecodeSettings

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP
    from tagclip.tagger import TagCLIP
    from wsss.mask_maker import MaskMaker
    from wsss.pipeline import WorkSettings

CAM = "cam"


@dataclass(frozen=True)
class MaskWorkSettings(DecodeSettings):
    """How the work is shared out; nothing in the results depends on it.

    Attributes:
        workers: decoding threads.
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
        masks: fields of `MaskConfig` over the preset's.
        method: where class maps come from: "cam", or a training-free strategy of `wsss.dense`; several: their mean.
        dense: fields of `DenseConfig` for the strategies.
        raw_cams: keep the maps before the affinity too, to look at them.
    """

    work: MaskWorkSettings = field(default_factory=MaskWorkSettings)
    tags: str | None = None
    tag_ids: str = "auto"
    masks: dict = field(default_factory=dict)
    method: str | tuple[str, ...] = CAM
    dense: dict = field(default_factory=dict)
    raw_cams: bool = True
    out: str = "runs/masks"

    @property
    def sources(self) -> tuple[str, ...]:
        """Where class maps come from, one name or several."""
        return (self.method,) if isinstance(self.method, str) else self.method

    def mask_config(self, vocabulary: Vocabulary) -> MaskConfig:
        """The preset for this vocabulary with `masks` written over it."""
        return MaskConfig.from_dict(self.masks, MaskConfig.preset(self.preset, vocabulary.name))


@dataclass(frozen=True)
class Recipe:
    """A run's settings, resolved for its vocabulary, and the objects that they describe."""

    run: MaskRunConfig
    vocabulary: Vocabulary
    tagging: TagCLIPConfig
    masks: MaskConfig

    @classmethod
    def resolve(cls, run: MaskRunConfig) -> Recipe:
        """Loads the vocabulary and writes the presets out.

        Raises:
            UsageError: an unknown vocabulary, field or value.
        """
        vocabulary = run.load_vocabulary()
        return cls(run, vocabulary, run.tagger_config(vocabulary), run.mask_config(vocabulary))

    def resolved(self) -> dict[str, Any]:
        """Every setting, presets written out, for the run folder's config.py; not where that folder lies."""
        values = dataclasses.asdict(self.run) | {"tagging": self.tagging.to_dict(), "masks": self.masks.to_dict()}
        del values["out"]
        return values

    def identity(self) -> dict[str, Any]:
        """The settings that results depend on. The tagger's are not among them where tags are given."""
        sources = self.run.sources
        method = sources[0] if len(sources) == 1 else list(sources)
        settings: dict[str, Any] = {"stage": "masks", "masks": self.masks.to_dict(), "method": method}
        if sources != (CAM,):
            settings["dense"] = self.run.dense
        batches = {"batch_size": self.tagging.batch_size, "batch_patches": self.tagging.batch_patches}
        settings["tagging"] = self.tagging.to_dict() if self.run.tags is None else batches
        return {**settings, "raw_cams": self.run.raw_cams}

    def work(self) -> WorkSettings:
        """How the work is shared out, with numbers in place of None."""
        from wsss.pipeline import WorkSettings

        share = self.run.work
        return WorkSettings(share.workers, share.mask_workers or cores(), share.mask_queue, self.run.raw_cams)

    def tagger(self, clip: FrozenCLIP, cache_dir: Path | str | None = None) -> TagCLIP:
        """Stage one."""
        from tagclip.tagger import TagCLIP

        return TagCLIP(clip, self.vocabulary, config=self.tagging, cache_dir=cache_dir)

    def maps(self, clip: FrozenCLIP, cache_dir: Path | str | None = None) -> MaskMaker:
        """Where class maps come from.

        Raises:
            UsageError: no such method, or none.
        """
        makers = [self._maker(name, clip, cache_dir) for name in self.run.sources]
        if len(makers) == 1:
            return makers[0]
        from wsss.fused_maps import FusedMaskGenerator

        return FusedMaskGenerator(makers)

    def _maker(self, source: str, clip: FrozenCLIP, cache_dir: Path | str | None) -> MaskMaker:
        if source == CAM:
            from wsss.generator import MaskGenerator

            return MaskGenerator(clip, self.vocabulary, config=self.masks, cache_dir=cache_dir)
        from wsss.dense.config import DenseConfig
        from wsss.dense.generator import DenseMaskGenerator

        dense = DenseConfig.from_dict({**self.run.dense, "strategy": source})
        return DenseMaskGenerator(clip, self.vocabulary, config=self.masks, dense=dense, cache_dir=cache_dir)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mask_options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of stage two on the command line as dotted config fields; those not given are left out."""
    named = {
        "tags": args.tags,
        "tag_ids": args.tag_ids,
        "masks.refiner": args.refine,
        "masks.confidence": args.confidence,
        "masks.views.scales": args.scales,
        "masks.views.flip": args.flip,
        "method": args.method,
        "work.mask_workers": args.crf_workers,
    }
    return {name: value for name, value in named.items() if value is not None}

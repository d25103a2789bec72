"""A run's settings, resolved, and the objects that they describe; those of a data set, from its config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.config import TagCLIPConfig
from tagclip.errors import UsageError
from tagclip.images import Size
from tagclip.settings import overlay
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.files.digests import file_digest, files_digest
from wsss.files.provenance import config_values
from wsss.files.run_files import read_manifest
from wsss.pipeline.memory import workers_that_fit
from wsss.pipeline.run_config import CAM, EXCEL, MaskRunConfig, load_run_config, tagging_identity

if TYPE_CHECKING:
    from tagclip.clip import FrozenCLIP
    from tagclip.tagger import TagCLIP
    from wsss.maps.source import ClassMapSource
    from wsss.pipeline.masks import WorkShare


@dataclass(frozen=True)
class Recipe:
    """A run's settings, resolved for its vocabulary, and the objects that they describe."""

    run: MaskRunConfig
    vocabulary: Vocabulary
    tagging: TagCLIPConfig
    masks: MaskConfig

    @classmethod
    def resolve(cls, run: MaskRunConfig, vocabulary: Vocabulary | None = None) -> Recipe:
        """Loads the vocabulary, unless it is given, and writes the presets out.

        Raises:
            UsageError: an unknown vocabulary, field or value.
        """
        vocabulary = vocabulary or run.load_vocabulary()
        masks = run.mask_config().for_labels(vocabulary.label_count)
        return cls(run, vocabulary, run.tagger_config(vocabulary), masks)

    @classmethod
    def of_run(cls, root: Path) -> Recipe:
        """The recipe of a run folder of stage two, to continue it with its own settings, classes and photos.

        Raises:
            UsageError: no such folder. RunError: its records are damaged.
        """
        manifest = read_manifest(root)
        if manifest is None or "masks" not in manifest:
            raise UsageError(f"--run {root}: no run of stage two (`tagclip run` or `tagclip mask` makes one)")
        run = overlay(MaskRunConfig(), config_values(root / "config.py"), f"{root / 'config.py'}:")
        return cls.resolve(replace(run, out=str(root)), Vocabulary.from_dict(manifest["vocabulary"]))

    def resolved(self) -> dict[str, Any]:
        """Every setting, presets written out, for the run folder's config.py; not where that folder lies."""
        written = {"tagging": self.tagging.to_dict(), "masks": self.masks.to_dict(), "class_thresholds": None}
        return self.run.to_dict() | written

    def identity(self) -> dict[str, Any]:
        """The settings that results depend on. The tagger's are not among them where tags are given."""
        sources = self.run.sources
        names = [Path(name).name if Path(name).is_file() else name for name in sources]
        method = names[0] if len(names) == 1 else names
        settings: dict[str, Any] = {"stage": "masks", "masks": self._mask_settings(), "method": method}
        if sources != (CAM,):
            settings["dense"] = self.run.dense
        if files := [Path(name) for name in sources if name.endswith(".py") and Path(name).is_file()]:
            settings["strategy_files"] = {path.name: file_digest(path) for path in files}
        batches = {"batch_size": self.tagging.batch_size, "batch_patches": self.tagging.batch_patches}
        model = self.run.model
        own = tagging_identity(self.tagging, dtype=model.dtype, by_student=model.tagger is not None)
        settings["tagging"] = own if self.run.tags is None else batches
        if self.run.save_confidence:
            settings["save_confidence"] = True
        return {**settings, "raw_cams": self.run.raw_cams}

    def _mask_settings(self) -> dict[str, Any]:
        """The settings of stage two less those of a refiner or a method that is not used."""
        masks = self.masks.to_dict()
        if masks["refiner"] != "par":
            del masks["par"]
        if masks["refiner"] != "pamr" or not masks["pamr"]["centre_per_dilation"]:
            del masks["pamr"]["centre_per_dilation"]  # older runs know no such setting
        if masks["refiner"] != "sam":
            del masks["sam"]
        else:
            masks["sam"]["weights"] = segmenter_digest(self.masks.sam.weights)
        if EXCEL not in self.run.sources:
            del masks["excel"]
        elif (attributes := masks["excel"]["attributes"]) is not None:
            masks["excel"]["attributes"] = file_digest(Path(attributes))
        return masks

    def work(self, sizes: Iterable[Size] = ()) -> WorkShare:
        """How the work is shared out, with numbers in place of None.

        Args:
            sizes: of the photos that are left; as many mask workers run as have room for the largest of them.
        """
        from wsss.pipeline.masks import WorkShare

        share = self.run.work
        mask_workers = share.mask_workers or workers_that_fit(sizes, self.masks)
        return WorkShare(share.workers, mask_workers, share.mask_queue, self.run.raw_cams, self.run.save_confidence)

    def tagger(self, clip: FrozenCLIP, cache_dir: Path | str | None = None) -> TagCLIP:
        """Stage one."""
        from tagclip.tagger import TagCLIP

        return TagCLIP(clip, self.vocabulary, config=self.tagging, cache_dir=cache_dir)

    def maps(self, clip: FrozenCLIP, cache_dir: Path | str | None = None) -> ClassMapSource:
        """Where class maps come from.

        Raises:
            UsageError: no such method, or none.
        """
        makers = [self._maker(name, clip, cache_dir) for name in self.run.sources]
        if len(makers) == 1:
            return makers[0]
        from wsss.maps.mean_source import MeanSource

        return MeanSource(makers)

    def _maker(self, source: str, clip: FrozenCLIP, cache_dir: Path | str | None) -> ClassMapSource:
        if source == CAM:
            from wsss.maps.gradcam_source import GradCamSource

            return GradCamSource(clip, self.vocabulary, config=self.masks, cache_dir=cache_dir)
        if source == EXCEL:
            from wsss.maps.excel_source import ExcelSource

            side = self.masks.excel.published_input
            if side is not None:
                raise UsageError(
                    f"masks.excel.published_input {side}: in a run the tagger sees the same input; set it to None, or "
                    "use MaskGenerator from Python"
                )
            return ExcelSource(clip, self.vocabulary, config=self.masks, cache_dir=cache_dir)
        from wsss.dense.dense_config import DenseConfig
        from wsss.dense.strategy_source import StrategySource

        dense = DenseConfig.from_dict({**self.run.dense, "strategy": source})
        return StrategySource(clip, self.vocabulary, config=self.masks, dense=dense, cache_dir=cache_dir)


def segmenter_digest(weights: str | None) -> str | None:
    """sha256 (hex) of the files of a segmenter's folder that decide its masks; None without a folder."""
    if weights is None or not Path(weights).is_dir():
        return None
    files = [path for path in Path(weights).iterdir() if path.suffix in (".json", ".safetensors")]
    return files_digest((path.name, path) for path in files)


def dataset_settings(
    name: str | Path, preset: str | None = None, options: Mapping[str, Any] | None = None
) -> Recipe:
    """The settings of a data set, as its config says.

    Args:
        name: of a shipped config of `configs/masks`, `configs/tagging` or `configs/demo`, or path of a config file.
        preset: "default" or "reference"; None: the config's.
        options: dotted fields written over the config's, {"masks.refiner": "none"}.

    Returns:
        A recipe: `.vocabulary`, `.tagging` (a `TagCLIPConfig`) and `.masks` (a `MaskConfig`).

    Raises:
        UsageError: no such config, or a wrong field or value.

    Example:
        >>> stuff = dataset_settings("masks/cocostuff")
        >>> stuff.tagging.rule.threshold, stuff.masks.affinity.box_threshold, len(stuff.vocabulary)
        (0.1, 0.7, 171)
        >>> tagger = TagCLIP(clip, stuff.vocabulary, config=stuff.tagging)  # doctest: +SKIP
    """
    given = {"preset": preset} if preset is not None else {}
    return Recipe.resolve(load_run_config(name, {**given, **(options or {})}, MaskRunConfig()))

"""A `ClipSegmentor` config scored on its test set, by our counts or by mmseg's own test loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope

from tagclip.errors import ImageError, TagclipError, UsageError
from tagclip.stored_files import FilePlace
from tagclip.vocabulary import Vocabulary
from wsss.configs import OUR_LOADER, read_masks_alike
from wsss.dense.dense_config import DenseConfig
from wsss.evaluation.mask_checks import PreflightConfig, check_pairs
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer, MaskScores
from wsss.files.mask_files import IGNORE_8_BIT, ignore_label, label_dtype, read_mask

OURS = ("mmcv.", "mmseg.", "wsss.")  # packages whose steps are known: ids change in those of MAPPING and in no other
MAPPING = ("LoadAnnotations", "LoadLabelMap", "CocoStuffToObjects")


def build_dataset(config: Config) -> Any:
    """The data set (mmseg) that a config is tested on, and whose labels its model has; the model itself is not made.

    Raises:
        UsageError: files of the data set that are missing, a label count that is not the model's, an ignore index that
            is a label.
    """
    from mmengine.utils import import_modules_from_strings
    from mmseg.registry import DATASETS

    imports = config.get("custom_imports")
    if imports:
        import_modules_from_strings(**imports)
    init_default_scope(config.get("default_scope", "mmseg"))
    settings = config.test_dataloader.dataset
    try:
        dataset = DATASETS.build(settings)
    except TagclipError:
        raise
    except (AssertionError, OSError) as error:
        raise UsageError(
            f"data set {settings.type} in {settings.get('data_root', '')}: {error or 'files missing'}; give --data"
        ) from None
    if not len(dataset):
        raise UsageError(f"data set {settings.type} in {settings.get('data_root', '')} has no images; give --data")
    names, labels = dataset.metainfo["classes"], Vocabulary.load(config.model.classes).label_count
    if len(names) != labels:
        raise UsageError(f"the data set has {len(names)} labels, the model {labels}: check model.classes")
    if dataset.ignore_index < len(names):
        raise UsageError(
            f"test_dataloader.dataset.ignore_index {dataset.ignore_index} is one of {len(names)} labels: set it to "
            f"{ignore_label(len(names))}, as the masks have it, and load them by LoadLabelMap"
        )
    return dataset


def build_dataset_and_model(config: Config) -> tuple[Any, Any]:
    """Data set and model (mmseg) of a config, checked against each other; see `build_dataset`."""
    dataset = build_dataset(config)
    return dataset, build_model(config)


def build_model(config: Config) -> Any:
    """The model (mmseg) of a config whose data set was built."""
    from mmseg.registry import MODELS

    return MODELS.build(config.model)


def score_dataset(
    dataset: Any,
    model: Any,
    *,
    limit: int | None = None,
    device: Any = "cpu",
    boundary_width: float = 0.0,
    check: bool = True,
    progress: Callable[[int], object] = lambda done: None,
) -> MaskScores:
    """Scores of a model on a data set, image by image.

    Args:
        dataset, model: from `build_dataset_and_model`.
        limit: only the first so many images.
        boundary_width: see `MaskEvaluationConfig`; 0 leaves boundary IoU out.
        check: look at all masks before the first image; False where `check_dataset` was called already.
        progress: called with 1 after each image.

    Raises:
        RunError: masks that cannot be scored against, see `check_dataset`.
    """
    scorer = MaskScorer(MaskEvaluationConfig(ignore_index=dataset.ignore_index, boundary_width=boundary_width))
    dtype = label_dtype(len(dataset.metainfo["classes"]))
    model = model.to(device)
    count = min(len(dataset), limit or len(dataset))
    if check:
        check_dataset(dataset, count)
    for index in range(count):
        sample = dataset[index]
        result = model.test_step({"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]})[0]
        predicted, truth = (
            found.data.squeeze(0).cpu().numpy().astype(dtype) for found in (result.pred_sem_seg, result.gt_sem_seg)
        )
        scorer.update(predicted, truth)
        progress(1)
    return scorer.scores(dataset.metainfo["classes"])


def check_dataset(dataset: Any, count: int | None = None) -> None:
    """Looks at the masks of a data set as its pipeline will hand them on; no model is needed.

    Ids are compared with the classes unless the pipeline has a step of somebody else's, which may map them.

    Args:
        count: only the first so many; None: all.

    Raises:
        RunError: masks that do not belong to their images, hold ids of no class, colours, or the 0 and 255 of binary
            masks, see `wsss.evaluation.mask_checks.check_pairs`.
    """
    steps = dataset.pipeline.transforms
    upright = all(getattr(step, "apply_exif", True) for step in steps)
    any_depth = any(type(step).__name__ == OUR_LOADER for step in steps)
    is_known = all(type(step).__module__.startswith(OURS) for step in steps)
    samples = [dataset.get_data_info(index) for index in range(len(dataset) if count is None else count)]
    by_mask: dict[FilePlace, Any] = {Path(sample["seg_map_path"]): sample for sample in samples}

    def read(path: FilePlace) -> np.ndarray:
        results = dict(by_mask[path], seg_fields=[])
        try:
            for step in steps:
                if type(step).__name__ in MAPPING:
                    results = step(results)
        except (OSError, ValueError, SyntaxError) as error:  # what mmcv's reader makes of a damaged file
            raise ImageError(f"{path}: cannot be read as a mask ({error})") from None
        return results["gt_seg_map"]

    check_pairs(
        [(Path(sample["img_path"]), path) for path, sample in by_mask.items()],
        dataset.metainfo["classes"] if is_known else None,
        PreflightConfig(apply_exif=upright, ignore_index=dataset.ignore_index), any_depth=any_depth,
        read=read if is_known else read_mask,
    )  # fmt: skip


def run_mmseg_loop(config: Config) -> dict[str, float]:
    """mmengine's Runner and mmseg's metric on the same config: what any mmseg user would run."""
    from mmengine.runner import Runner

    return Runner.from_cfg(config).test()


def adapt(
    config: Config,
    *,
    clip: dict | None = None,
    dense: dict | None = None,
    data_root: str | None = None,
    cache_dir: str | None = None,
    limit: int | None = None,
    options: dict | None = None,
) -> Config:
    """The config with what a command line asks for written over it; None values leave it as it is.

    Masks are read as by every other command, see `wsss.configs.read_masks_alike`.
    """
    config.merge_from_dict(options or {})
    for name, values in (("clip", clip), ("dense", dense)):
        given = {key: value for key, value in (values or {}).items() if value is not None}
        if name == "dense" and "strategy" in given and given["strategy"] != config.model.dense.get("strategy"):
            config.model.dense.options = {}  # another strategy has other options
        config.model.setdefault(name, {}).update(given)
    if clip and clip.get("path_or_name") and not clip.get("pretrained"):
        config.model.clip.pop("pretrained", None)  # it belonged to the config's own model
    read_masks_alike(config.test_dataloader, config.test_dataloader.dataset.get("ignore_index", IGNORE_8_BIT))
    if data_root is not None:
        config.test_dataloader.dataset.data_root = data_root
    if cache_dir is not None:
        config.model.cache_dir = cache_dir
    if limit is not None:
        config.test_dataloader.dataset.indices = limit
    return config


def summary(scores: MaskScores, config: Config) -> dict:
    """JSON-ready: the settings and the scores."""
    settings = config.model.dense.to_dict()
    return {
        "dense": settings, "settings": DenseConfig.from_dict(settings).describe(),
        "classes_file": str(config.model.classes), **scores.to_dict(),
    }  # fmt: skip

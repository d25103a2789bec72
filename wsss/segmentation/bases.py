"""What our configs call: configs of the installed mmseg, weights that this package ships, a data set's settings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tagclip.errors import UsageError
from wsss.files.sources import load_vocabulary

DEMO_BACKBONE = str(Path(__file__).parents[1] / "demo" / "assets" / "demo_resnet18.pth")  # see wsss/demo/backbone.py


def mmseg_config(relative: str) -> str:
    """Absolute path of a config that the installed mmsegmentation ships.

    Our configs write `_base_ = __import__(...).mmseg_config("...")` instead of mmengine's `_base_ = "mmseg::..."`:
    the latter looks for a distribution named exactly `mmsegmentation`, so it fails beside the maintained fork
    `onedl-mmsegmentation`. This form finds the configs beside either.

    Args:
        relative: path below mmseg's `configs` folder, e.g. "_base_/models/deeplabv3_r50-d8.py".

    Raises:
        UsageError: mmseg is not installed, or ships no such config.
    """
    spec = find_spec("mmseg")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("mmsegmentation is not installed; install the extra: pip install 'tagclip-wsss[seg]'")
    path = Path(spec.submodule_search_locations[0], ".mim", "configs", relative)
    if not path.is_file():
        raise UsageError(f"the installed mmsegmentation ships no config {relative}")
    return str(path)


def trained_on(base: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A model's config brought to a data set: folders, number of labels, length of training.

    Args:
        base: what the config inherits; mmengine has it under the name `_base_` while it runs a config.
        name: of the data set, a key of `base["data_sets"]`.

    Returns:
        Top-level keys of the config, which mmengine merges into `base`.
    """
    settings = base["data_sets"][name]
    vocabulary, iterations = settings["vocabulary"], settings["iterations"]
    values: dict[str, Any] = {
        f"{part}_dataloader": {"dataset": {"data_root": settings[folder], "vocabulary": vocabulary}}
        for part, folder in (("train", "run"), ("val", "val"), ("test", "val"))
    }
    if vocabulary is not None:
        labels = {"num_classes": len(load_vocabulary(vocabulary).label_names)}
        heads = ("decode_head", "auxiliary_head") if base["model"].get("auxiliary_head") else ("decode_head",)
        values["model"] = {head: dict(labels) for head in heads}
    before = base["train_cfg"]["max_iters"]
    if iterations != before:
        interval = base["train_cfg"]["val_interval"] * iterations // before
        values["train_cfg"] = {"max_iters": iterations, "val_interval": interval}
        values["param_scheduler"] = [{**one, "end": iterations} for one in base["param_scheduler"]]
    return values

"""Configs of mmseg for our masks: one reader of them, and 65535 instead of 255 where 255 is a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsss.configs import read_masks_alike
from wsss.files.mask_files import IGNORE_8_BIT, ignore_label

# Where mmcv's and mmseg's types keep the ignored value, 255 by default. Heads pass theirs to most losses.
PLACES = {
    "RandomCrop": "ignore_index",
    "GenerateEdge": "ignore_index",
    "RandomRotate": "seg_pad_val",
    "RandomMosaic": "seg_pad_val",
    "SegDataPreProcessor": "seg_pad_val",
    "IoUMetric": "ignore_index",
    "DiceLoss": "ignore_index",
    "TverskyLoss": "ignore_index",
    "HuasdorffDisstanceLoss": "ignore_index",
    "OhemCrossEntropy": "ignore_label",
}


def settle_labels(settings: Any, labels: int) -> None:
    """Has masks read as every other command reads them, and writes 65535 wherever 255 would be skipped; in place.

    Args:
        settings: a part of a config.
        labels: number of labels, the background included; up to 255 of them, 255 is skipped as ever.

    Raises:
        UsageError: more labels than a mask can hold.
    """
    ignored = ignore_label(labels)
    read_masks_alike(settings, ignored)
    if ignored != IGNORE_8_BIT:
        _ignore(settings, ignored)


def _ignore(settings: Any, ignored: int) -> None:
    if isinstance(settings, dict):
        kind = settings.get("type")
        if kind == "Pad":
            settings["pad_val"] = {"img": 0, **_as_dict(settings.get("pad_val")), "seg": ignored}
        elif kind in PLACES:
            settings[PLACES[kind]] = ignored
        if "loss_decode" in settings:  # a head
            settings["ignore_index"] = ignored
        for value in settings.values():
            _ignore(value, ignored)
    elif isinstance(settings, list | tuple):
        for value in settings:
            _ignore(value, ignored)


def _as_dict(pad: Any) -> dict[str, Any]:
    if pad is None:
        return {}
    return dict(pad) if isinstance(pad, Mapping) else {"img": pad}

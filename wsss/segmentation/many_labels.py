"""Configs of mmseg for more than 255 labels: 255 is a class there, and everything that skips it must skip 65535."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsss.files.mask_files import IGNORE_8_BIT, ignore_label

LOADER, OUR_LOADER = "LoadAnnotations", "LoadLabelMap"  # mmseg's casts to 8 bits
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


def ignore_16_bit(settings: Any, labels: int) -> None:
    """Writes 65535 wherever 255 would be skipped, and a loader of 16-bit masks; in place, nothing for few labels.

    Args:
        settings: a part of a config.
        labels: number of labels, the background included.

    Raises:
        UsageError: more labels than a mask can hold.
    """
    ignored = ignore_label(labels)
    if ignored != IGNORE_8_BIT:
        _write(settings, ignored)


def _write(settings: Any, ignored: int) -> None:
    if isinstance(settings, dict):
        kind = settings.get("type")
        if kind == LOADER:
            settings["type"] = OUR_LOADER
            for option in [name for name in settings if name != "type"]:
                settings.pop(option)
        elif kind == "Pad":
            settings["pad_val"] = {"img": 0, **_as_dict(settings.get("pad_val")), "seg": ignored}
        elif kind in PLACES:
            settings[PLACES[kind]] = ignored
        if "loss_decode" in settings:  # a head
            settings["ignore_index"] = ignored
        for value in settings.values():
            _write(value, ignored)
    elif isinstance(settings, list | tuple):
        for value in settings:
            _write(value, ignored)


def _as_dict(pad: Any) -> dict[str, Any]:
    if pad is None:
        return {}
    return dict(pad) if isinstance(pad, Mapping) else {"img": pad}

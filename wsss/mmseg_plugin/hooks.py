"""Side effects of training: checkpoints that describe themselves, and a picture of the curves."""

from __future__ import annotations

import json
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from wsss.segmentation.checkpoints import DESCRIPTION
from wsss.segmentation.curves import draw_curves, read_curves


@HOOKS.register_module()
class SelfDescribingCheckpointHook(Hook):
    """Writes the model's settings, classes and palette into every checkpoint as JSON.

    A checkpoint alone is then enough for inference and export, and reading it executes nothing, unlike the Python
    config that mmengine stores.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        meta = checkpoint["meta"].get("dataset_meta") or {}
        settings = {
            "model": runner.cfg.model,
            "test_pipeline": runner.cfg.get("test_pipeline", []),
            "tta": runner.cfg.get("multi_scale_test", {}),
            "classes": list(meta.get("classes", ())),
            "palette": [[int(value) for value in colour] for colour in meta.get("palette", ())],
        }
        checkpoint["meta"][DESCRIPTION] = json.dumps(settings, default=_plain)


@HOOKS.register_module()
class TrainingCurveHook(Hook):
    """Draws loss and mIoU over the iterations into `curves.png` of the work folder, at each validation and at the end.

    Args:
        filename: name of the picture.
    """

    priority = "VERY_LOW"

    def __init__(self, filename: str = "curves.png") -> None:
        self.filename = filename

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._draw(runner)

    def after_train(self, runner: Runner) -> None:
        self._draw(runner)

    def _draw(self, runner: Runner) -> None:
        if is_main_process():
            folder = Path(runner.work_dir)
            draw_curves(read_curves(folder), folder / self.filename)


def _plain(value: object) -> object:
    if isinstance(value, tuple | set):
        return list(value)
    return str(value)

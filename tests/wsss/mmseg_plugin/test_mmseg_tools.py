"""An existing mmseg user's way: mmseg's own train and test scripts, our data set by custom_imports alone."""

import os
import subprocess
import sys
from pathlib import Path

import mmseg
import pytest

from tests.wsss.segmentation import squares

TOOLS = Path(mmseg.__file__).parent / ".mim" / "tools"
ROOT = Path(__file__).parents[3]

# Nothing of ours but the two data set entries and the import: model, transforms and hooks are mmseg's.
CONFIG = '''
custom_imports = dict(imports=["wsss.mmseg_plugin"])
default_scope = "mmseg"
norm = dict(type="BN")
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[127.0] * 3, std=[50.0] * 3, bgr_to_rgb=True,
                           size=(64, 64), pad_val=0, seg_pad_val=255),
    backbone=dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, norm_cfg=norm),
    decode_head=dict(type="FCNHead", in_channels=64, channels=8, in_index=3, num_classes=4, norm_cfg=norm),
    test_cfg=dict(mode="whole"),
)
train_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="RandomFlip", prob=0.5),
                  dict(type="PackSegInputs")]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="PseudoMaskDataset", data_root=r"{run}", pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="PseudoMaskDataset", data_root=r"{val}", vocabulary={classes}, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01))
train_cfg = dict(type="IterBasedTrainLoop", max_iters=3, val_interval=3)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=3, save_best="mIoU"),
                     visualization=dict(type="SegVisualizationHook"))
visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer")
log_processor = dict(by_epoch=False)
'''


def call(*arguments: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("mmseg")
    run, val = squares.run_folder(root / "run", count=4), squares.voc_folder(root / "val", count=2)
    text = CONFIG.replace("{run}", str(run)).replace("{val}", str(val)).replace("{classes}", repr(squares.CLASSES))
    (root / "config.py").write_text(text)
    return root


def test_mmsegs_own_scripts_train_and_test(folder):
    log = call(TOOLS / "train.py", folder / "config.py", "--work-dir", folder / "work")
    assert "mIoU" in log
    assert (folder / "work" / "iter_3.pth").is_file()
    log = call(TOOLS / "test.py", folder / "config.py", folder / "work" / "iter_3.pth", "--work-dir", folder / "test")
    assert "background" in log
    assert "mIoU" in log

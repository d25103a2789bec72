"""Shared by every recipe: mmseg's runtime and its 20 000 iterations of SGD, our plug-in, checkpoints, curves."""

_base_ = [
    __import__("wsss.segmentation.bases", fromlist=["mmseg_config"]).mmseg_config(name)
    for name in ("_base_/default_runtime.py", "_base_/schedules/schedule_20k.py")
]

custom_imports = dict(imports=["wsss.mmseg_plugin"], allow_failed_imports=False)
env_cfg = dict(cudnn_benchmark=True)
# Without a name of its own the visualizer takes the experiment's, so that two trainings in one process never share it.
visualizer = dict(
    _delete_=True,
    type="SegLocalVisualizer",
    vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
)
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="CheckpointHook", by_epoch=False, interval=2000, save_best="mIoU", rule="greater", max_keep_ckpts=2
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
)
custom_hooks = [dict(type="SelfDescribingCheckpointHook"), dict(type="TrainingCurveHook")]
randomness = dict(seed=0)

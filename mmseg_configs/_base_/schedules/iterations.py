# What all schedules share: loops that count iterations, and the hooks.
train_cfg = dict(type="IterBasedTrainLoop")
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, save_best="mIoU", max_keep_ckpts=3),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    visualization=dict(type="SegVisualizationHook"),
    # a checkpoint of another architecture is an error, and resuming steps over a damaged file
    guard=dict(type="CheckpointGuard"),
    # Ctrl-C saves first
    interrupt=dict(type="InterruptHook"),
)

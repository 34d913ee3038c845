# the same in a few minutes, with tiny images
_base_ = "./schedule_1k.py"
param_scheduler = [dict(_base_.param_scheduler[0], end=300)]
train_cfg = dict(max_iters=300, val_interval=50)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=50))

# from scratch on a CPU, with small images and batches of 8
_base_ = "./iterations.py"
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01), clip_grad=None)
param_scheduler = [dict(type="PolyLR", eta_min=1e-5, power=0.9, begin=0, end=1000, by_epoch=False)]
train_cfg = dict(max_iters=1000, val_interval=100)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))

"""A small network in mmengine's own runner, for the tests of hooks."""

from __future__ import annotations

import os
import signal

import torch
from mmengine.dataset import DefaultSampler
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import TensorDataset

import dynconv_plugins as dc


@OPTIM_WRAPPERS.register_module(force=True)
class CPUAmp(AmpOptimWrapper):
    """mmengine's mixed precision without its demand for a GPU: torch has a gradient scaler for the CPU too."""

    def __init__(self, loss_scale: float, **kwargs) -> None:
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param, self.cast_dtype = loss_scale, torch.bfloat16
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale)


class Regressor(BaseModel):
    """One dynamic convolution that notes the temperature of every training step."""

    def __init__(self, conv: nn.Module | None = None, signal_in_step: int | None = None) -> None:
        super().__init__()
        self.signal_in_step = signal_in_step
        self.conv = dc.ODConv2d(4, 4, 3, num_kernels=2) if conv is None else conv
        self.seen: list[float] = []

    def forward(self, x, mode="tensor"):
        if self.training and dc.operators_in(self) and hasattr(self.conv.attention, "temperature"):
            self.seen.append(self.conv.attention.temperature.item())
        if self.training and len(self.seen) == self.signal_in_step:
            os.kill(os.getpid(), signal.SIGINT)
        return {"loss": self.conv(x).pow(2).mean()}


def run(
    work_dir,
    hook,
    *,
    conv=None,
    resume=False,
    signal_in_step=None,
    load_from=None,
    strict=True,
    optim=None,
    kind="TemperatureHook",
    **loop,
):
    torch.manual_seed(0)
    model = Regressor(conv, signal_in_step)
    data = TensorDataset(torch.randn(8, 4, 5, 5))
    by_epoch = loop.get("by_epoch", False)
    guard = dict(type="CheckpointGuard", strict=strict)
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=dict(
            dataset=data, batch_size=2, sampler=dict(type=DefaultSampler), collate_fn=dict(type="default_collate")
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01, momentum=0.9), **(optim or {})),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1 if by_epoch else 3, by_epoch=by_epoch)),
        custom_hooks=[dict(type=kind, **hook), dict(type="InterruptHook"), guard],
        default_scope="mmengine",
        resume=resume,
        load_from=load_from,
        cfg=dict(resume=resume, load_from=load_from),
        randomness=dict(seed=0),  # or mmengine draws a seed of its own, and the order of the samples with it
        log_level="WARNING",
        experiment_name=f"{work_dir.parent.name}_{work_dir.name}_{resume}_{loop}".replace(" ", ""),
    )
    runner.train()
    return model, runner

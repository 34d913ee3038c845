"""The temperature hook in mmengine's own runner: per iteration, per epoch, and under resume."""

from __future__ import annotations

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import TensorDataset

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError


class Regressor(BaseModel):
    """One dynamic convolution that notes the temperature of every training step."""

    def __init__(self, dynamic: bool = True) -> None:
        super().__init__()
        self.conv = dc.ODConv2d(4, 4, 3, num_kernels=2) if dynamic else nn.Conv2d(4, 4, 3)
        self.seen: list[float] = []

    def forward(self, x, mode="tensor"):
        if self.training and hasattr(self.conv, "attention"):
            self.seen.append(self.conv.attention.temperature.item())
        return {"loss": self.conv(x).pow(2).mean()}


def run(work_dir, hook, *, dynamic=True, resume=False, **loop):
    model = Regressor(dynamic)
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(8, 4, 5, 5))
    by_epoch = loop.get("by_epoch", False)
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=dict(
            dataset=data, batch_size=2, sampler=dict(type=DefaultSampler), collate_fn=dict(type="default_collate")
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1 if by_epoch else 3, by_epoch=by_epoch)),
        custom_hooks=[dict(type="TemperatureHook", **hook)],
        default_scope="mmengine",
        resume=resume,
        log_level="WARNING",
        experiment_name=f"{work_dir.name}_{resume}_{loop}".replace(" ", ""),
    )
    runner.train()
    return model, runner


def test_falls_per_iteration(tmp_path):
    model, runner = run(tmp_path, dict(iters=4, start=9.0, end=1.0), by_epoch=False, max_iters=6)
    assert model.seen == pytest.approx([9, 7, 5, 3, 1, 1])
    assert runner.message_hub.get_scalar("train/temperature").current() == 1


def test_falls_over_epochs(tmp_path):
    model, _ = run(tmp_path, dict(epochs=1, start=9.0, end=1.0), by_epoch=True, max_epochs=2)
    assert model.seen == pytest.approx([9, 7, 5, 3, 1, 1, 1, 1])


def test_resume_continues_the_schedule(tmp_path):
    hook = dict(iters=5, start=11.0, end=1.0)
    run(tmp_path, hook, by_epoch=False, max_iters=3)
    saved = torch.load(tmp_path / "iter_3.pth", weights_only=False)["state_dict"]
    assert saved["conv.attention.temperature"] == 7
    model, _ = run(tmp_path, hook, by_epoch=False, max_iters=6, resume=True)
    assert model.seen == pytest.approx([5, 3, 1])


@pytest.mark.parametrize("hook", [{}, dict(iters=3, epochs=1)])
def test_needs_one_length(tmp_path, hook):
    with pytest.raises(UserError, match="iters= or epochs="):
        run(tmp_path, hook, by_epoch=False, max_iters=1)


def test_refuses_a_static_model(tmp_path):
    with pytest.raises(UserError, match="no dynamic convolution"):
        run(tmp_path, dict(iters=3), dynamic=False, by_epoch=False, max_iters=1)

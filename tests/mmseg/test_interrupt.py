"""A signal during validation: what is saved then, and that training goes on from it as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import TensorDataset


class Line(BaseModel):
    """Something to train; with `stop` it is told to stop by the first batch of a validation."""

    def __init__(self, stop: bool) -> None:
        super().__init__()
        self.layer, self.stop = nn.Linear(2, 1), stop

    def forward(self, x, mode="tensor"):
        y = self.layer(x)
        if mode == "loss":
            return {"loss": y.pow(2).mean()}
        if self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
            self.stop = False
        return [*y]


class Size(BaseMetric):
    """How far the outputs are from nought; `found` holds it for each validation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def process(self, data_batch, data_samples):
        self.results += [y.item() ** 2 for y in data_samples]

    def compute_metrics(self, results):
        self.found.append(sum(results))
        return {"size": sum(results)}


def train(work_dir: Path, stop: bool = False, resume: bool = False) -> tuple[dict, list[float]]:
    """The last checkpoint of four iterations with a validation after every second, and what the validations found."""
    torch.manual_seed(0)
    metric = Size()
    loader = dict(dataset=TensorDataset(torch.randn(8, 2)), batch_size=2, sampler=dict(type=DefaultSampler))
    loader["collate_fn"] = dict(type="default_collate")
    runner = Runner(
        Line(stop),
        str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2),
        val_cfg=dict(),
        val_evaluator=Evaluator(metric),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False, save_best="size", rule="less"),
            interrupt=dict(type="InterruptHook"),
        ),
        custom_hooks=[dict(type="EMAHook", momentum=0.3)],
        default_scope="mmengine",
        resume=resume,
        randomness=dict(seed=0),
        log_level="WARNING",
        experiment_name=f"interrupt-{work_dir.name}-{resume}",
    )
    if stop:
        with pytest.raises(SystemExit) as caught:
            runner.train()
        assert caught.value.code == 130
    else:
        runner.train()
    last = (work_dir / "last_checkpoint").read_text()
    return torch.load(last, weights_only=False), metric.found


def test_a_signal_during_validation_loses_neither_weights_nor_validation(tmp_path):
    whole, all_found = train(tmp_path / "whole")
    cut, before = train(tmp_path / "cut", stop=True)
    assert cut["meta"]["iter"] == 2
    average, weights = cut["state_dict"]["layer.weight"], cut["ema_state_dict"]["module.layer.weight"]
    assert not torch.equal(average, weights)
    assert (tmp_path / "cut" / "best_size_iter_2.pth").is_file()

    resumed, after = train(tmp_path / "cut", resume=True)
    assert before + after == all_found and len(all_found) == 2
    for kind in ("state_dict", "ema_state_dict"):
        for key, value in whole[kind].items():
            assert torch.equal(value, resumed[kind][key]), f"{kind}: {key}"

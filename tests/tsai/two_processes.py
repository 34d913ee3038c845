"""What test_distributed.py has torchrun start twice: ``two_processes.py FOLDER``, and a rank that is to fail, or none.

Trains a network with batch normalisation; the first process writes what it keeps of its statistics, and what each had.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from fastai.callback.core import Callback
from fastai.torch_core import rank_distrib
from torch import nn
from tsai.learner import ts_learner

from tsai_models import distributed
from tsai_models.data import Series
from tsai_models.recipes import Recipe
from tsai_models.train import loaders

CHANNELS = 3


class Fails(Callback):
    """In the second epoch of one process, when a best model is on the disk and the others wait for its statistics."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def before_validate(self) -> None:
        if self.epoch and rank_distrib() == self.rank:
            raise RuntimeError(f"rank {self.rank} fails on purpose")


def train(device: torch.device, folder: Path, failing: int | None) -> int:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((24, 1, 20)).astype(np.float32), np.array(["a", "b"] * 12)
    series = Series(X, y, (list(range(16)), list(range(16, 24))))
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(CHANNELS)
    layers = (nn.Conv1d(1, CHANNELS, 5), norm, nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    own = torch.zeros(CHANNELS)

    def note(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if module.training:
            own.lerp_(inputs[0].detach().mean((0, 2)), norm.momentum)

    norm.register_forward_pre_hook(note)
    dls = distributed.shared(loaders(series, series.official, 4, device))
    cbs = [] if failing is None else [Fails(failing)]
    learn = ts_learner(dls, nn.Sequential(*layers, nn.Linear(CHANNELS, 2)), cbs=cbs)
    learn.model_dir = folder
    with learn.no_bar(), learn.no_logging(), learn.added_cbs(distributed.callbacks()):
        Recipe(epochs=2, lr=1e-2, schedule="constant", holdout=0.5, best=failing is not None).fit(learn)
    each = [torch.zeros(CHANNELS) for _ in range(2)]
    dist.all_gather(each, own)
    if distributed.primary():
        found = {"kept": norm.running_mean.tolist(), "each": [value.tolist() for value in each]}
        (folder / "statistics.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    where, *rest = sys.argv[1:]
    which = int(rest[0]) if rest else None
    sys.exit(distributed.together(lambda device: train(device, Path(where), which), torch.device("cpu")))

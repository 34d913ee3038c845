"""Several processes that train one network: ``torchrun --nproc-per-node=2 -m tsai_models train ...``.

fastai's own support wants the accelerate package and GPUs. This is torch's: each process trains on its share of every
batch, gradients are averaged, and the first process alone writes. Validation and prediction see all series in each
process, so that every process decides alike (early stopping, the best epoch). The batch size is per process.

Batch normalisation sees a process's own share; its running statistics are averaged before each validation. Dropout,
mixup and augmentation are drawn per process. Everything else is what one process with the whole batch computes.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from types import MethodType

import numpy as np
import torch
import torch.distributed as dist
from fastai.callback.core import Callback
from fastai.torch_core import distrib_barrier, num_distrib, rank_distrib
from torch.nn.parallel import DistributedDataParallel

_NAMES = ("RANK", "WORLD_SIZE")  # by which fastai knows that it is not alone


def together(train: Callable[[torch.device], int], device: torch.device) -> int:
    """Calls `train` with this process's device, joined with the others that torchrun has started, if it has.

    Only the first process prints.
    """
    if num_distrib() <= 1:
        return train(device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    several = device.type == "cuda" and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    dist.init_process_group("nccl" if several else "gloo")
    try:
        if primary():
            return train(device)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return train(device)
    finally:
        dist.destroy_process_group()


def primary() -> bool:
    """Whether this process writes the files."""
    return rank_distrib() == 0


@contextlib.contextmanager
def primary_first() -> Iterator[None]:
    """What the first process makes in here is there when the others come."""
    if not primary():
        distrib_barrier()
    yield
    if primary():
        distrib_barrier()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """In here fastai does not put together what the processes predict: each has predicted everything."""
    hidden = {name: os.environ.pop(name) for name in _NAMES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def shared(dls):
    """Makes tsai's training loader yield this process's share of each batch; `dls` again.

    All processes take the order of the first. Of n series each gets every n-th from its own number on.
    """
    if num_distrib() <= 1:
        return dls
    loader, rank, size = dls.loaders[0], rank_distrib(), num_distrib()
    whole = loader.n
    # The length of an epoch follows from these two.
    loader.n = whole // size
    loader.bs = min(loader.bs, loader.n)

    def get_idxs(self) -> np.ndarray:
        order = torch.as_tensor(self.shuffle_fn(np.arange(whole)), device=self.device)
        dist.broadcast(order, 0)
        return order.cpu().numpy()[: self.n * size][rank::size]

    loader.get_idxs = MethodType(get_idxs, loader)
    return dls


def callbacks() -> list[Callback]:
    """What a fit of several processes needs; nothing for one."""
    return [_Together()] if num_distrib() > 1 else []


class _Together(Callback):
    """Wraps the model for a fit, so that its gradients are averaged over the processes."""

    order = 56  # after a moving average of the weights has put itself in the model's place for a validation

    def before_fit(self) -> None:
        model, device = self.learn.model, self.dls.device
        # The same weights and the same order so far, but no longer the same dropout.
        torch.manual_seed(torch.initial_seed() + rank_distrib())
        self.learn.model = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
        # By default the first process's statistics replace all others' before each step. An attribute, because the
        # argument is deprecated and, unlike this, would leave the buffers apart from the start.
        self.learn.model.broadcast_buffers = False

    def before_validate(self) -> None:
        for buffer in self.learn.model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= num_distrib()

    def after_fit(self) -> None:
        if isinstance(self.learn.model, DistributedDataParallel):
            self.learn.model = self.learn.model.module

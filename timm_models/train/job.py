"""All that a run works with, and how it is asked to stop."""

from __future__ import annotations

import argparse
import math
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from timm.data import Mixup
from torch import nn
from tqdm import tqdm

import dynconv_plugins as dc

from .checkpoint import Saver
from .state import Progress
from .world import World


class Stopped(Exception):
    """A signal asked the run to stop; everything up to here has been saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class StopRequest:
    """Notes SIGINT and SIGTERM, so that the update under way is finished first; a second Ctrl-C does not wait."""

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = number


@dataclass
class Job:
    """All that a run works with."""

    args: argparse.Namespace
    world: World
    model: nn.Module  # bare: neither compiled nor wrapped
    task: Any
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: Any
    autocast: Callable[[], AbstractContextManager]
    mixup: Mixup | None
    train_loader: Any
    eval_loader: Any
    progress: Progress
    stop: StopRequest
    saver: Saver | None = None  # on the primary process
    temperature: dc.LinearTemperature | None = None
    has_budget: bool = False  # of hard attention, in the model

    @property
    def updates_per_epoch(self) -> int:
        return math.ceil(len(self.train_loader) / self.args.grad_accum_steps)

    def bar(self, loader: Any, title: str, done: int = 0) -> tqdm:
        """A progress bar on the primary process's terminal."""
        off = None if self.world.primary else True
        return tqdm(loader, title, len(loader), leave=False, disable=off, initial=done, dynamic_ncols=True)

    @property
    def updates_done(self) -> int:
        """Updates made in the epoch under way."""
        return math.ceil(self.progress.batch / self.args.grad_accum_steps)

    @property
    def first_watched(self) -> int:
        """The epoch from which the best checkpoint, the plateau schedule and early stopping look at the metric.

        While a temperature falls, the network is changed from outside, and its validation loss with it. The last epoch
        counts in any case.
        """
        falling = 0.0 if self.temperature is None else self.temperature.falling
        own = getattr(self.model, "annealing", None)  # of a model that lowers its temperature itself, in batches
        if own is not None:
            falling = own.falling / len(self.train_loader)
        return min(math.ceil(falling), self.args.total_epochs - 1)

    def save_or_stop(self, stop: bool) -> None:
        """Ends an update: stops if asked to, and writes the recovery checkpoint if one is due."""
        interval = self.args.recovery_interval
        if stop:
            self.stop_now()
        elif self.saver is not None and interval and self.updates_done % interval == 0:
            self.saver.save_recovery(self.progress.epoch, batch_idx=self.updates_done)

    def stop_now(self, save: bool = True) -> None:
        """Saves, where that has not just been done, and raises `Stopped`."""
        if save and self.saver is not None:
            self.saver.save_recovery(self.progress.epoch, batch_idx=self.updates_done)
        raise Stopped(self.stop.signum or signal.SIGINT)

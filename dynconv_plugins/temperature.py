"""The attention's temperature: setting it, its schedule, and a schedule that needs no callback.

A high temperature keeps the softmax over kernels near uniform early in training, so that all of them learn (Dynamic
Convolution, CVPR 2020, section 3.3). It is a buffer of each operator, so checkpoints hold it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .convert import operators_in
from .recompute import backward_pass


def set_temperature(model: nn.Module, temperature: float) -> None:
    """Sets the temperature of every dynamic operator in `model`.

    Raises:
        ValueError: If it is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    for operator in operators_in(model).values():
        operator.set_temperature(temperature)


@dataclass(frozen=True)
class LinearTemperature:
    """Falls linearly from `start` to `end` over the first `epochs`, then stays; call it with a fractional epoch.

    The defaults are ODConv's and DyConv's, per iteration: 30 to 1 over 10 epochs.
    """

    start: float = 30.0
    end: float = 1.0
    epochs: float = 10.0

    def __post_init__(self) -> None:
        if min(self.start, self.end) <= 0 or self.epochs < 0:
            raise ValueError(f"temperatures must be positive and epochs not negative, got {self}")

    def __call__(self, epoch: float) -> float:
        part = 1.0 if self.epochs == 0 else min(max(epoch / self.epochs, 0.0), 1.0)
        return self.start + (self.end - self.start) * part


def anneal(model: nn.Module, start: float = 30.0, end: float = 1.0, steps: int = 1000) -> nn.Module:
    """Makes `model` lower its own temperature, one step a training forward: for trainers that have no callbacks.

    The counter is a buffer, ``annealing_step``, so resuming continues where training was.

    Args:
        model: A model with dynamic operators; given a forward pre-hook. One that anneals already starts anew.
        start, end: Temperatures before the first and from the last step on.
        steps: Training forwards to go from one to the other.

    Raises:
        ValueError: If `steps` is not positive.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    model.annealing = LinearTemperature(float(start), float(end), steps)
    device = next(model.parameters()).device
    model.register_buffer("annealing_step", torch.zeros((), dtype=torch.long, device=device))
    if _lower not in model._forward_pre_hooks.values():  # annealed before: it starts again
        model.register_forward_pre_hook(_lower)
    set_temperature(model, start)
    return model


@torch.no_grad()
def _lower(model: nn.Module, _inputs) -> None:
    # A module-level function, not a bound method: copies of the model then count for themselves. Tensor arithmetic,
    # not the schedule's Python numbers: a compiled model must not be compiled again for every step.
    # Activation checkpointing repeats a forward, which has been counted; its temperature is still there.
    if not model.training or backward_pass() >= 0:
        return
    schedule = model.annealing
    part = (model.annealing_step / schedule.epochs).clamp(max=1.0)
    for operator in operators_in(model).values():
        operator.set_temperature(schedule.start + (schedule.end - schedule.start) * part)
    model.annealing_step += 1

"""The attention's temperature: setting it, its schedule, and a schedule that needs no callback.

A high temperature keeps the softmax over kernels near uniform early in training, so that all of them learn (Dynamic
Convolution, CVPR 2020, section 3.3). It is a buffer of each operator, so checkpoints hold it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from .compiled import bare
from .convert import operators_in
from .operators.base import DynamicConv
from .problem import transforming
from .recompute import backward_pass


def set_temperature(model: nn.Module, temperature: float) -> None:
    """Sets the temperature of every dynamic operator in `model`; one that anneals (`anneal`) ends that.

    Raises:
        ValueError: If it is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    for module in model.modules():
        if hasattr(module, "annealing"):
            module.annealing = None
    for operator in operators_in(model).values():
        operator.set_temperature(temperature)


def has_learned(operator: DynamicConv) -> bool:
    """Whether an operator is any other than `load_static` leaves it: equal kernels under a neutral attention.

    Trained attention is used to its temperature, and would forget at another; what was converted from a static network
    computes the same at any.
    """
    with torch.random.fork_rng(devices=[]):
        now, neutral, again = (copy.deepcopy(operator.attention).cpu() for _ in range(3))
        neutral.neutralise(), again.neutralise()
    # What comes out differently each time is drawn, and tells nothing.
    states = zip(*(attention.state_dict().values() for attention in (now, neutral, again)), strict=True)
    trained = any(torch.equal(first, second) and not torch.equal(value, first) for value, first, second in states)
    return trained or bool((operator.stacked != operator.stacked[:1]).any())


def came_trained(operator: DynamicConv) -> bool:
    """Whether an operator's attention was loaded, and had been trained: then it keeps the temperature that it has."""
    return operator.attention_loaded and hasattr(operator.attention, "temperature") and has_learned(operator)


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

    @property
    def falling(self) -> float:
        """For how many epochs it changes."""
        return self.epochs if self.start != self.end else 0.0

    def __call__(self, epoch: float) -> float:
        part = 1.0 if self.epochs == 0 else min(max(epoch / self.epochs, 0.0), 1.0)
        return self.start + (self.end - self.start) * part


def anneal(model: nn.Module, start: float = 30.0, end: float = 1.0, steps: int = 1000) -> nn.Module:
    """Makes `model` lower its own temperature, one step a training forward: for trainers that have no callbacks.

    The counter is a buffer, ``annealing_step``, so resuming continues where training was; a model that does not anneal
    loads the weights without it. In evaluation too the temperature is the one that the counter tells: an average of the
    weights (timm's ``ModelEmaV3``) averages the temperatures as well, but copies the counter. ``ModelEmaV2`` does not:
    call `set_temperature` on its model.

    ``torch.compile`` guards no hooks: where a network of the same structure has been compiled in the process without
    annealing, call ``torch._dynamo.reset()`` first.

    Args:
        model: A model with dynamic operators; given a forward pre-hook. One that anneals already starts anew.
        start, end: Temperatures before the first and from the last step on.
        steps: Training forwards to go from one to the other.

    Raises:
        ValueError: If `steps` is not positive, or the model has no memory yet (meta device).
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    device = next(model.parameters()).device
    if device.type == "meta":
        raise ValueError("the model is on the meta device: anneal it after to_empty(), which would lose the counter")
    set_temperature(model, start)
    inner = bare(model)
    inner.annealing = LinearTemperature(float(start), float(end), steps)
    inner.register_buffer("annealing_step", torch.zeros((), dtype=torch.long, device=device))
    # One that was annealed before starts again. The hook is the outer module's: compiled code may not see another.
    if not any(_lower in module._forward_pre_hooks.values() for module in (model, inner)):
        model.register_forward_pre_hook(_lower)
    return model


@torch.no_grad()
def _lower(model: nn.Module, _inputs) -> None:
    # A module-level function, not a bound method: copies of the model then count for themselves. Tensor arithmetic,
    # not the schedule's Python numbers: a compiled model must not be compiled again for every step.
    # Activation checkpointing repeats a forward, which has been counted; its temperature is still there.
    model = bare(model)
    schedule = model.annealing
    if schedule is None or backward_pass() >= 0 or not (model.training or _may_write()):
        return
    # In evaluation that of the last training step; before the first, what the weights came with.
    done = model.annealing_step if model.training else model.annealing_step - 1
    temperature = schedule.start + (schedule.end - schedule.start) * (done / schedule.epochs).clamp(max=1.0)
    for operator in operators_in(model).values():
        if not model.training and hasattr(operator.attention, "temperature"):
            operator.set_temperature(torch.where(done < 0, operator.attention.temperature, temperature))
        else:
            operator.set_temperature(temperature)
    if model.training:
        model.annealing_step += 1


def _may_write() -> bool:
    """Whether a forward for evaluation may set buffers: no trace that is kept, and no transform of a function."""
    kept = torch.jit.is_tracing() or torch.compiler.is_exporting()
    return not kept and not transforming()

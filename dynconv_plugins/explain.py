"""Which backend runs each layer of a model, and why the others do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from .backends import BACKENDS, choose_backend, force, name_of
from .convert import operators_in
from .problem import Problem


class _Watching:
    """Stands in for a backend: notes the problem, then runs what would have been chosen."""

    __name__ = "watching"

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.seen: list[tuple[str, Problem]] = []

    def supports(self, problem: Problem) -> str | None:
        return None

    def run(self, x, weight, attention, problem: Problem):
        # A model may also call `dynamic_conv` itself, in no operator.
        self.seen.append((self.entered.pop() if self.entered else "dynamic_conv", problem))
        with force(None):
            return choose_backend(problem).run(x, weight, attention, problem)


def explain_backends(model: nn.Module, input_size: Sequence[int]) -> str:
    """Runs `model` once and tells, for each dynamic layer, the chosen backend and what the others were estimated at.

    Args:
        model: Left as it is, and run in its own mode and with gradients if it is training.
        input_size: The input's shape with its batch.

    Returns:
        A line a layer: name, shape, the choice, then each other backend with its cost relative to the choice, or the
        reason why it does not support the layer.
    """
    lines = []
    watching = _Watching()
    handles = [
        op.register_forward_pre_hook(lambda m, _i, name=name: watching.entered.append(name or type(m).__name__))
        for name, op in operators_in(model).items()
    ]
    # Of buffers those too that checkpoints do not hold; as they are, for some are exchanged and not changed.
    before = [
        (module, name, value, None if value is None else value.clone())
        for module in model.modules()
        for name, value in module._buffers.items()
    ]
    first = next(model.parameters(), torch.empty(()))
    devices = [first.device] if first.is_cuda else []
    try:
        with force(watching), torch.set_grad_enabled(model.training), torch.random.fork_rng(devices):
            model(torch.zeros(tuple(input_size), device=first.device, dtype=first.dtype))
    finally:
        for handle in handles:
            handle.remove()
        for module, name, value, saved in before:
            module._buffers[name] = value if value is None else value.copy_(saved)
    for name, problem in watching.seen:
        chosen = choose_backend(problem)
        cost = chosen.cost(problem)
        size, taps = ("x".join(map(str, sizes)) for sizes in (problem.size, problem.kernel_size))
        shape = f"{problem.c_in}->{problem.c_out} at {size}, kernel {taps}, K={problem.kernels}"
        others = []
        for other in BACKENDS.values():
            if other is chosen or name_of(other) == "reference":
                continue
            reason = other.supports(problem)
            others.append(f"{name_of(other)}: {reason or _relative(other.cost(problem), cost)}")
        lines.append(f"{name}  {shape}:  {name_of(chosen)}  ({'; '.join(others)})")
    return "\n".join(lines) or "no dynamic convolution in this model"


def _relative(cost: float, chosen: float) -> str:
    """A backend's cost beside the chosen one's; what has no end is there to be forced."""
    if math.isinf(cost):
        return "never chosen here, only forced"
    return "cheaper, if it were not for the forced one" if math.isinf(chosen) else f"{cost / chosen:.1f}x the cost"

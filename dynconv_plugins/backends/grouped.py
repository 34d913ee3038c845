"""Per-sample kernels, one convolution with ``batch * groups`` groups: what the published implementations do."""

from __future__ import annotations

import math

from torch import Tensor

from ..problem import Problem
from . import costs
from .plain import conv, mixed_kernels, not_aggregated, scale_channels


def supports(problem: Problem) -> str | None:
    """Everything but per-position mixing and maxima, which have no per-sample kernel, and an empty batch."""
    if not problem.samples:
        return "a batch without samples makes a convolution without groups"
    return not_aggregated(problem)


def cost(problem: Problem) -> float:
    """The multiply-adds, and a kernel a sample; a traced graph would be made anew for every batch size."""
    if problem.traced:
        return math.inf
    return costs.work(problem) + costs.per_sample_kernels(problem) + costs.activations(problem)


def run(x: Tensor, weight: Tensor, attention, problem: Problem) -> Tensor:
    """Input and output attention act on the activations, as published."""
    kernels = mixed_kernels(weight, attention, problem)
    kernels = kernels.reshape(-1, problem.c_in // problem.groups, *problem.kernel_size)
    x = scale_channels(x, attention.input).reshape(1, -1, *problem.size)
    y = conv(x, kernels, problem, problem.batch * problem.groups)
    return scale_channels(y.reshape(problem.batch, problem.c_out, *problem.out_size), attention.output)

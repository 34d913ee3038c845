"""Per-sample kernels with all factors folded in, convolved one sample at a time by the static convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from ..problem import Problem
from . import costs
from .plain import conv, folded_kernels


def supports(problem: Problem) -> str | None:
    """Eager mode only: the loop over the batch would be unrolled into a traced graph."""
    if problem.per_position:
        return "a kernel per position cannot be aggregated per sample"
    if problem.traced and problem.batch != 1:
        return "loops over the batch, which a traced graph must not"
    return None


def cost(problem: Problem) -> float:
    """Aggregation, and a small static convolution per sample."""
    return costs.aggregate(problem, folded=True) + costs.static_conv(problem, calls=problem.batch)


def run(x: Tensor, weight: Tensor, attention, problem: Problem) -> Tensor:
    """No pass over the activations but the convolution itself: all attention gradients come from the kernel's."""
    kernels = folded_kernels(weight, attention, problem)
    kernels = kernels.reshape(problem.batch, problem.c_out, -1, *problem.kernel_size)
    if problem.batch == 1:
        return conv(x, kernels[0], problem)
    return torch.cat([conv(xb, kb, problem) for xb, kb in zip(x.split(1), kernels.unbind(), strict=True)])

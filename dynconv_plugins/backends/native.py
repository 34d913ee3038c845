"""Kernels mixed in cache by compiled C, and used before they leave it: the fastest way on a CPU, see ../native."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..native.depthwise import native_depthwise
from ..native.library import unavailable
from ..native.op import native
from ..problem import Problem
from . import costs
from .plain import folded_kernels, not_aggregated


def supports(problem: Problem) -> str | None:
    """What has one kernel per sample, on a CPU with a C compiler; a graph that leaves the process cannot hold it."""
    if problem.device != "cpu":
        return "it runs on CPUs"
    if problem.transformed:
        return "torch.func does not see into its operation"
    if problem.exported:
        return "its operation exists in this process only"
    return not_aggregated(problem) or unavailable(_computed_in(problem.dtype))


def cost(problem: Problem) -> float:
    """The multiply-adds without padding, mixing in cache, and the order of the shared kernels."""
    cost = costs.work(problem, costs.reached(problem)) + costs.kernels_in_cache(problem)
    if problem.channels_last:
        return cost
    # Channels are made the last in memory, and the first again.
    return cost + costs.passes(
        problem, 2 * (problem.c_in * math.prod(problem.size) + problem.c_out * problem.positions)
    )


def run(x: Tensor, weight: Tensor, attention, problem: Problem) -> Tensor:
    """One operation, with a gradient of its own."""
    dtype = _computed_in(x.dtype)
    if dtype != x.dtype:
        attention = type(attention)(*(None if t is None else t.to(dtype) for t in attention))
        return run(x.to(dtype), weight.to(dtype), attention, problem).to(x.dtype)
    geometry = (list(problem.stride), list(problem.padding), list(problem.dilation))
    if problem.depthwise:
        kernels = folded_kernels(weight, attention, problem).flatten(1, 2).transpose(1, 2)
        return native_depthwise(x, kernels, list(problem.kernel_size), *geometry)
    return native(x, weight, *attention, *geometry, problem.groups)


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    """Half precision is computed in single: few processors multiply it any faster."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype

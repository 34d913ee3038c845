"""Per-sample kernels with all factors folded in, and one batched GEMM on im2col."""

from __future__ import annotations

from torch import Tensor

from ..problem import Problem
from . import costs
from .columns import columns, from_rows
from .plain import folded_kernels, not_aggregated, unfolded


def supports(problem: Problem) -> str | None:
    """Everything but per-position mixing and maxima, which have no per-sample kernel."""
    return not_aggregated(problem)


def cost(problem: Problem) -> float:
    """Aggregation, im2col, and a GEMM that reads each kernel for its own sample's positions only."""
    columns = 0.0 if pointwise(problem) else costs.im2col(problem)
    return costs.work(problem) + 1.5 * costs.per_sample_kernels(problem) + columns


def run(x: Tensor, weight: Tensor, attention, problem: Problem) -> Tensor:
    """``y_b = W_b @ im2col(x_b)``."""
    kernels = folded_kernels(weight, attention, problem)
    groups, c_in, c_out = problem.groups, problem.c_in // problem.groups, problem.c_out // problem.groups
    if problem.traced or pointwise(problem):
        cols = x if pointwise(problem) else unfolded(x, problem)
        cols = cols.reshape(problem.batch, groups, problem.fan_in, problem.positions)
        y = kernels.reshape(problem.batch, groups, c_out, problem.fan_in) @ cols
        return y.reshape(problem.batch, problem.c_out, *problem.out_size)
    rows = columns(x, problem)
    if groups == 1:
        kernels = kernels.transpose(2, 3).flatten(2)
        return from_rows(rows.flatten(2) @ kernels.transpose(1, 2), problem)
    rows = rows.unflatten(3, (groups, c_in)).permute(0, 3, 1, 2, 4).flatten(3)
    kernels = kernels.reshape(problem.batch, groups, c_out, c_in, problem.taps).permute(0, 1, 4, 3, 2).flatten(2, 3)
    return from_rows((rows @ kernels).transpose(1, 2).flatten(2), problem)


def pointwise(problem: Problem) -> bool:
    """Whether the input is its own im2col."""
    return problem.taps == 1 and set(problem.stride) == {1} and not any(problem.padding)

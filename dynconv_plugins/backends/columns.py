"""im2col in channels-last order, where a position's taps and channels are an overlapping view of the padded input."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..problem import Problem


def columns(x: Tensor, problem: Problem) -> Tensor:
    """Rows of the implicit GEMM, ``[B, positions, taps, C_in]``, of ``[B, C_in, *S]`` in any memory format."""
    x = x.movedim(1, -1)
    pads = [0, 0] + [p for size in reversed(problem.padding) for p in (size, size)]
    x = F.pad(x, pads) if any(pads) else x
    return _Columns.apply(x.contiguous(), problem)


class _Columns(torch.autograd.Function):
    """One copy forward; backward adds tap by tap, where autograd's own for a strided view scatters elements."""

    @staticmethod
    def forward(ctx, x: Tensor, problem: Problem) -> Tensor:
        ctx.problem, ctx.shape = problem, x.shape
        batch, *middle, channel = x.stride()
        steps = [m * s for m, s in zip(middle, problem.stride, strict=True)]
        taps = [m * d for m, d in zip(middle, problem.dilation, strict=True)]
        shape = (problem.batch, *problem.out_size, *problem.kernel_size, problem.c_in)
        window = x.as_strided(shape, (batch, *steps, *taps, channel))
        return window.reshape(problem.batch, problem.positions, problem.taps, problem.c_in)

    @staticmethod
    def backward(ctx, grad: Tensor):
        problem: Problem = ctx.problem
        grad = grad.reshape(problem.batch, *problem.out_size, problem.taps, problem.c_in)
        grad_x = grad.new_zeros(ctx.shape)
        for t, tap in enumerate(itertools.product(*(range(k) for k in problem.kernel_size))):
            where = (slice(None),) + tuple(
                slice(i * d, i * d + (o - 1) * s + 1, s)
                for i, d, o, s in zip(tap, problem.dilation, problem.out_size, problem.stride, strict=True)
            )
            grad_x[where] += grad[..., t, :]
        return grad_x, None


def from_rows(rows: Tensor, problem: Problem) -> Tensor:
    """``[B, positions, C_out]`` back to ``[B, C_out, *S_out]``, as a view."""
    return rows.reshape(problem.batch, *problem.out_size, problem.c_out).movedim(-1, 1)

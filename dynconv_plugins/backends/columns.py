"""im2col in channels-last order: one pass that gathers and scales, and a backward that keeps only the input.

A position's row holds its taps times its channels, ``[B, positions, taps * C]``. In channels-last memory this is an
overlapping strided view of the padded input, so gathering and multiplying by a per-sample scale is one multiply.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..problem import Problem


def columns(x: Tensor, scale: Tensor | None, problem: Problem) -> Tensor:
    """Rows of the implicit GEMM.

    Args:
        x: ``[B, C_in, *S]`` in any memory format.
        scale: ``[B, taps, C_in]`` or ``None``.
        problem: The geometry.

    Returns:
        ``[B, positions, taps, C_in]``.
    """
    x = x.movedim(1, -1)
    pads = [0, 0] + [p for size in reversed(problem.padding) for p in (size, size)]
    x = F.pad(x, pads) if any(pads) else x
    return _Columns.apply(x.contiguous(), scale, problem)


def _window(x: Tensor, problem: Problem) -> Tensor:
    """The overlapping view ``[B, *S_out, *kernel_size, C]`` of a padded channels-last input."""
    batch, *middle, channel = x.stride()
    steps = [m * s for m, s in zip(middle, problem.stride, strict=True)]
    taps = [m * d for m, d in zip(middle, problem.dilation, strict=True)]
    shape = (problem.batch, *problem.out_size, *problem.kernel_size, problem.c_in)
    return x.as_strided(shape, (batch, *steps, *taps, channel))


def _broadcast(scale: Tensor, problem: Problem) -> Tensor:
    return scale.reshape(problem.batch, *(1,) * problem.dims, *problem.kernel_size, problem.c_in)


class _Columns(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor | None, problem: Problem) -> Tensor:
        ctx.problem = problem
        ctx.save_for_backward(x, scale)
        window = _window(x, problem)
        rows = window.contiguous() if scale is None else window * _broadcast(scale, problem)
        return rows.reshape(problem.batch, problem.positions, problem.taps, problem.c_in)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, scale = ctx.saved_tensors
        problem: Problem = ctx.problem
        grad = grad.reshape(problem.batch, *problem.out_size, problem.taps, problem.c_in)
        grad_x = grad_scale = None
        if scale is not None and ctx.needs_input_grad[1]:
            grad_scale = torch.empty_like(scale)
        if ctx.needs_input_grad[0]:
            grad_x = torch.zeros_like(x)
        for t, tap in enumerate(itertools.product(*(range(k) for k in problem.kernel_size))):
            where = (slice(None),) + tuple(
                slice(i * d, i * d + (o - 1) * s + 1, s)
                for i, d, o, s in zip(tap, problem.dilation, problem.out_size, problem.stride, strict=True)
            )
            g = grad[..., t, :]
            if grad_scale is not None:
                grad_scale[:, t] = (g * x[where]).flatten(1, -2).sum(1)
            if grad_x is not None:
                if scale is None:
                    grad_x[where] += g
                else:
                    grad_x[where].addcmul_(g, scale[:, t].reshape(problem.batch, *(1,) * problem.dims, -1))
        return grad_x, grad_scale, None


def from_rows(rows: Tensor, problem: Problem) -> Tensor:
    """``[B, positions, C_out]`` back to ``[B, C_out, *S_out]`` in the input's memory format."""
    y = rows.reshape(problem.batch, *problem.out_size, problem.c_out).movedim(-1, 1)
    return y if problem.channels_last else y.contiguous()

"""A convolution whose taps are scaled per sample, as one matrix product per tap over the positions it reaches.

Padding is skipped, not multiplied: on a map of 2x2 a 3x3 kernel needs 16 of its 36 products. Nothing but the input
is kept for backward; the scaled rows are made again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from ..problem import Problem

Slices = tuple[slice, ...]


def tap_convolution(x: Tensor, scale: Tensor, weight: Tensor, problem: Problem) -> Tensor:
    """``sum_t (scale_t * x shifted by t) @ weight_t``.

    Args:
        x: ``[B, *S, C_in]``, contiguous.
        scale: ``[B, taps, C_in]``.
        weight: ``[groups, F, taps, C_in / groups]``: from a channels-last weight a view, else one copy that moves each
            filter's values within the cache. Any order with taps outermost is six times as slow to make.
        problem: The geometry.

    Returns:
        ``[B, *S_out, groups * F]``.
    """
    return _TapConvolution.apply(x, scale, weight, problem)


def _reach(problem: Problem) -> Iterator[tuple[int, Slices, Slices]]:
    """For each tap that touches the input at all: its number, the input it reads, and the output it adds to."""
    for t, tap in enumerate(itertools.product(*(range(k) for k in problem.kernel_size))):
        read, written = [slice(None)], [slice(None)]
        for i, d, p, s, n, o in zip(
            tap, problem.dilation, problem.padding, problem.stride, problem.size, problem.out_size, strict=True
        ):
            offset = i * d - p
            first, last = max(0, -(offset // s)), min(o - 1, (n - 1 - offset) // s)
            if last < first:
                break
            written.append(slice(first, last + 1))
            read.append(slice(first * s + offset, last * s + offset + 1, s))
        else:
            yield t, tuple(read), tuple(written)


def _per_sample(values: Tensor, problem: Problem) -> Tensor:
    """``[B, C]`` made to broadcast over positions."""
    return values.reshape(problem.batch, *(1,) * problem.dims, values.shape[1])


def _times(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows ``[N, groups * I]`` times ``[groups, I, O]``, giving ``[N, groups * O]``."""
    if len(weight) == 1:
        return rows @ weight[0]
    return (rows.unflatten(1, (len(weight), -1)).transpose(0, 1) @ weight).transpose(0, 1).flatten(1)


def _outer(grad: Tensor, rows: Tensor, groups: int) -> Tensor:
    """``[N, groups * O]`` and ``[N, groups * I]`` to the gradient ``[groups, O, I]`` of a tap's weight."""
    if groups == 1:
        return (grad.t() @ rows)[None]
    grad, rows = (t.unflatten(1, (groups, -1)).transpose(0, 1) for t in (grad, rows))
    return grad.transpose(1, 2) @ rows


class _TapConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, weight: Tensor, problem: Problem) -> Tensor:
        ctx.problem = problem
        ctx.save_for_backward(x, scale, weight)
        y = x.new_zeros(problem.batch, *problem.out_size, weight.shape[0] * weight.shape[1])
        for t, read, written in _reach(problem):
            rows = x[read] * _per_sample(scale[:, t], problem)
            y[written] += _times(rows.flatten(0, -2), weight[:, :, t].mT).reshape(*rows.shape[:-1], y.shape[-1])
        return y

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, scale, weight = ctx.saved_tensors
        problem: Problem = ctx.problem
        for_x, for_scale, for_weight = ctx.needs_input_grad[:3]
        grad_x = torch.zeros_like(x) if for_x else None
        grad_scale = torch.zeros_like(scale) if for_scale else None
        grad_weight = torch.zeros_like(weight) if for_weight else None
        for t, read, written in _reach(problem):
            g = grad[written].flatten(0, -2)
            factor = _per_sample(scale[:, t], problem)
            if for_weight:
                grad_weight[:, :, t] = _outer(g, (x[read] * factor).flatten(0, -2), problem.groups)
            if not (for_x or for_scale):
                continue
            rows = _times(g, weight[:, :, t]).reshape(x[read].shape)
            if for_scale:
                grad_scale[:, t] = (rows * x[read]).flatten(1, -2).sum(1)
            if for_x:
                # In place, unless that is to be differentiated too.
                grad_x[read] += rows * factor if torch.is_grad_enabled() else rows.mul_(factor)
        return grad_x, grad_scale, grad_weight, None

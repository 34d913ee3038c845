"""Shared weights: taps are scaled before, outputs mixed after one convolution or GEMM with K * C_out filters.

No per-sample kernel is ever made, so this is the one way that also mixes per position, or takes a maximum:

    y = f * sum_k a_k * ( W_k @ (s * im2col(c * x)) )       one GEMM a tap for the whole batch
    y = f * sum_k a_k * conv(c * x, W_k)                     without s: one static convolution

With ``combine='max'`` the sum over k is a maximum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..problem import Problem
from . import costs
from .columns import from_rows
from .plain import combined, conv, not_aggregated, scale_channels, unfolded
from .taps import tap_convolution


def supports(problem: Problem) -> str | None:
    """Everything."""
    return None


def cost(problem: Problem) -> float:
    """K times the static multiply-adds; a pass over the input for each tap where taps are scaled."""
    if "spatial" not in problem.factors:
        return costs.work(problem, problem.kernels) + costs.activations(problem) + costs.mix(problem)
    if problem.depthwise and not problem.traced and not not_aggregated(problem):
        return math.inf  # matrix products with one row, where there is another way
    rows = costs.tap_rows(problem, problem.kernels) + costs.shared_kernels(problem)
    return costs.work(problem, problem.kernels * costs.reached(problem)) + rows + costs.mix(problem)


def run(x: Tensor, weight: Tensor, attention, problem: Problem) -> Tensor:
    """Mixes outputs; weights are shared by the batch."""
    if attention.kernel is None and problem.combine == "sum" and problem.kernels > 1:
        weight = weight.sum(0, keepdim=True)
    if attention.spatial is None:
        x = scale_channels(x, attention.input)
        y = conv(x, _group_major(weight, problem).reshape(-1, *weight.shape[2:]), problem)
        y = y.unflatten(1, (problem.groups, len(weight), -1))
        return scale_channels(_mix(y, attention.kernel, problem, 2), attention.output)
    if problem.traced:
        return _traced(x, weight, attention, problem)
    scale = attention.spatial.reshape(problem.batch, problem.taps, 1)
    scale = scale.expand(-1, -1, problem.c_in) if attention.input is None else scale * attention.input[:, None]
    filters = _group_major(weight, problem).flatten(1, 2).flatten(3).transpose(2, 3).contiguous()
    y = tap_convolution(x.movedim(1, -1).contiguous(), scale, filters, problem)
    y = y.flatten(1, -2).unflatten(-1, (problem.groups, len(weight), -1))
    return from_rows(_mix_rows(y, attention, problem), problem)


def _group_major(weight: Tensor, problem: Problem) -> Tensor:
    """``[K, C_out, ...]`` to ``[groups, K, C_out / groups, ...]``: a group's filters of all kernels side by side."""
    return weight.unflatten(1, (problem.groups, -1)).transpose(0, 1)


def _mix_rows(y: Tensor, attention, problem: Problem) -> Tensor:
    """``[B, positions, groups, K, C_out / groups]`` to ``[B, positions, C_out]``."""
    if attention.kernel is not None:
        a = attention.kernel.flatten(2).transpose(1, 2) if problem.per_position else attention.kernel[:, None]
        y = y * a[:, :, None, :, None]
    y = combined(y, 3, problem).flatten(2)
    return y if attention.output is None else y * attention.output[:, None]


def _mix(y: Tensor, kernel: Tensor | None, problem: Problem, dim: int) -> Tensor:
    """``[B, groups, K, C_out / groups, *S_out]`` to ``[B, C_out, *S_out]``."""
    if kernel is not None:
        tail = kernel.shape[2:] if problem.per_position else (1,) * problem.dims
        y = y * kernel.reshape(problem.batch, 1, problem.kernels, 1, *tail)
    return combined(y, dim, problem).flatten(1, 2)


def _traced(x: Tensor, weight: Tensor, attention, problem: Problem) -> Tensor:
    """The GEMM form in plain operations, for tracers and exporters."""
    cols = unfolded(scale_channels(x, attention.input), problem)
    cols = cols * attention.spatial.reshape(problem.batch, 1, problem.taps, 1)
    cols = cols.reshape(problem.batch, problem.groups, problem.fan_in, problem.positions)
    w = _group_major(weight, problem).reshape(problem.groups, -1, problem.fan_in)
    y = torch.matmul(w, cols).reshape(problem.batch, problem.groups, weight.shape[0], -1, *problem.out_size)
    return scale_channels(_mix(y, attention.kernel, problem, 2), attention.output)

"""What backends share: the static convolution of any dimension, and the per-sample kernels."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..problem import Problem

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def conv(x: Tensor, weight: Tensor, problem: Problem, groups: int | None = None) -> Tensor:
    """The static convolution with `problem`'s geometry; `groups` where it is not `problem`'s."""
    return _CONV[problem.dims](
        x, weight, None, problem.stride, problem.padding, problem.dilation, problem.groups if groups is None else groups
    )


def scale_channels(x: Tensor, factor: Tensor | None) -> Tensor:
    """Multiplies the channels of ``[B, C, *S]`` by ``[B, C]``; an absent factor costs nothing."""
    return x if factor is None else x * factor.reshape(*factor.shape, *(1,) * (x.dim() - 2))


def not_aggregated(problem: Problem) -> str | None:
    """Why the K kernels cannot become one kernel per sample before the convolution; ``None`` where they can."""
    if problem.per_position:
        return "a kernel per position cannot be aggregated per sample"
    if problem.combine == "max" and problem.kernels > 1:
        return "the maximum of K outputs is not the output of any one kernel"
    return None


def combined(y: Tensor, dim: int, problem: Problem) -> Tensor:
    """The K outputs along `dim` made one, by their sum or their maximum.

    Among equal maxima ``amax`` divides the gradient evenly: it depends on no order of the kernels.
    """
    if y.shape[dim] == 1:
        return y.squeeze(dim)
    return y.amax(dim) if problem.combine == "max" else y.sum(dim)


def mixed_kernels(weight: Tensor, attention, problem: Problem) -> Tensor:
    """Per-sample kernels ``sum_k a_bk W_k`` times `spatial`, as ``[B, C_out, C_in / groups, taps]``.

    `spatial` is shared by the K kernels, so it is applied once, after mixing; the mixing is one small GEMM.
    """
    flat = weight.reshape(problem.kernels, -1)
    mixed = flat.sum(0, keepdim=True) if attention.kernel is None else attention.kernel @ flat
    mixed = mixed.reshape(-1, problem.c_out, problem.c_in // problem.groups, problem.taps)
    if attention.spatial is not None:
        mixed = mixed * attention.spatial.reshape(problem.batch, 1, 1, problem.taps)
    return mixed.expand(problem.batch, -1, -1, -1)


def folded_kernels(weight: Tensor, attention, problem: Problem) -> Tensor:
    """Per-sample kernels with all four factors in them, ``[B, C_out, C_in / groups, taps]``."""
    kernels = mixed_kernels(weight, attention, problem)
    if attention.input is not None:
        # One row of input channels per group, repeated for the group's filters.
        c = attention.input.reshape(problem.batch, problem.groups, 1, problem.c_in // problem.groups)
        c = c.expand(-1, -1, problem.c_out // problem.groups, -1)
        if attention.output is not None:
            c = c * attention.output.reshape(problem.batch, problem.groups, problem.c_out // problem.groups, 1)
        return kernels * c.reshape(problem.batch, problem.c_out, problem.c_in // problem.groups, 1)
    if attention.output is not None:
        return kernels * attention.output.reshape(problem.batch, problem.c_out, 1, 1)
    return kernels


def unfolded(x: Tensor, problem: Problem) -> Tensor:
    """im2col by slices, ``[B, C_in, taps, positions]``: traceable, exportable, differentiable by autograd alone."""
    pads = [p for size in reversed(problem.padding) for p in (size, size)]
    x = F.pad(x, pads) if any(pads) else x
    slices = []
    # Python's integers: those of a tensor become unknown symbols under torch.export, which takes it minutes.
    for tap in itertools.product(*(range(k) for k in problem.kernel_size)):
        view = x
        for i, t in enumerate(tap):
            start = t * problem.dilation[i]
            stop = start + (problem.out_size[i] - 1) * problem.stride[i] + 1
            view = view[(slice(None),) * (2 + i) + (slice(start, stop, problem.stride[i]),)]
        slices.append(view)
    return torch.stack(slices, 2).flatten(3)

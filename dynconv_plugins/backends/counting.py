"""A backend that computes nothing and leaves one operation in a trace, for `complexity` to count.

It is never chosen, only forced: counts must not depend on the backend that would run.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..problem import Problem

OP = "dynconv::counted"


def supports(problem: Problem) -> str | None:
    """Everything."""
    return None


@torch.library.custom_op(OP, mutates_args=())
def counted(
    x: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    spatial: Tensor | None,
    input: Tensor | None,
    output: Tensor | None,
    out_size: list[int],
    combine: str,
) -> Tensor:
    """Zeros of the right shape; `combine` is there to be counted."""
    return x.new_zeros(x.shape[0], weight.shape[1], *out_size)


def run(x: Tensor, weight: Tensor, attention, problem: Problem) -> Tensor:
    """Zeros; the operation's inputs tell what there is to count."""
    # A tracer's sizes are tensors.
    return counted(x, weight, *attention, [int(size) for size in problem.out_size], problem.combine)


def multiply_adds(
    x: list[int],
    weight: list[int],
    output: list[int],
    has_kernel: bool,
    has_input_or_spatial: bool,
    has_output: bool,
    aggregated: bool = True,
) -> int:
    """Multiply-adds of one dynamic convolution, in the aggregated form where it has one, attention head excluded.

    With N weights a kernel:

    - the convolution itself, N for each output position and group;
    - K N to mix K > 1 kernels;
    - K N to scale them along taps and input channels, N to scale the mixed one along filters;
    - the pooled descriptor, C_in for each output position.

    This rule gives ODConv's published table, row by row, to 0.12% (the ResNets to 0.02%) when the 1x1 downsample
    convolutions are counted as dynamic, as that table does although its parameters and its code keep them static. The
    fully connected layers of the attention head are counted where they stand.

    Without an aggregated form (the maximum of K outputs, or kernel weights per position) there are K convolutions and
    nothing is mixed beforehand; instead each position weights K C_out outputs, and scales C_out. Comparing is free.

    Args:
        x: ``[B, C_in, *S]``.
        weight: ``[K, C_out, C_in / groups, *kernel_size]``.
        output: ``[B, C_out, *S_out]``.
        has_kernel, has_input_or_spatial, has_output: Which attention factors there are.
        aggregated: Whether the K kernels can become one per sample.
    """
    kernels, one = weight[0], math.prod(weight[1:])
    batch, positions = x[0], math.prod(output[2:])
    mixing, filters = kernels * one * (has_kernel and kernels > 1), one * has_output
    if not aggregated:
        values = positions * output[1]
        mixing, filters = kernels * values * has_kernel, values * has_output
    convolving = positions * one * (1 if aggregated else kernels)
    making = mixing + kernels * one * has_input_or_spatial + filters
    return batch * (convolving + making + positions * x[1] * (has_kernel or has_input_or_spatial or has_output))

"""What ``torch.utils.flop_counter`` counts for the operations of `fused` and `native`: two operations a multiply-add.

fvcore needs no handle: `complexity` counts every backend by the one rule of `counting`.
"""

from __future__ import annotations

import math

import torch
from torch.utils.flop_counter import register_flop_formula

from . import fused, native  # noqa: F401 - they define the operations
from .counting import multiply_adds

OPS = torch.ops.dynconv


@register_flop_formula([OPS.fused, OPS.native])
def forward_flops(x, weight, kernel, spatial, input, output, *_, out_shape=None, **__) -> int:
    """Twice `complexity`'s multiply-adds: the convolution, and the making of its kernels."""
    there = [factor is not None for factor in (kernel, spatial, input, output)]
    return 2 * multiply_adds(x, weight, out_shape, there[0], there[1] or there[2], there[3])


@register_flop_formula(OPS.fused_backward)
def fused_backward_flops(grad, x, weight, *arguments, **_) -> int:
    """The static convolution's: one more convolution for the input, and one for the weights and factors together."""
    needs = arguments[-1]
    return _static(grad, weight[1:], needs[0] + any(needs[1:]))


@register_flop_formula(OPS.native_backward)
def native_backward_flops(grad, x, weight, *arguments, **_) -> int:
    """As `fused_backward_flops`."""
    return _static(grad, weight[1:], sum(arguments[-2:]))


@register_flop_formula(OPS.native_depthwise)
def depthwise_flops(x, kernels, *_, out_shape=None, **__) -> int:
    """The convolution's alone: its kernels come from operations of torch, which are counted where they stand."""
    return _static(out_shape, kernels[1:], 1)


@register_flop_formula(OPS.native_depthwise_backward)
def depthwise_backward_flops(grad, x, kernels, *arguments, **_) -> int:
    """One convolution for the input, and one for the kernels."""
    return _static(grad, kernels[1:], sum(arguments[-2:]))


def _static(output: list[int], kernel: list[int], times: int) -> int:
    return 2 * times * output[0] * math.prod(output[2:]) * math.prod(kernel)

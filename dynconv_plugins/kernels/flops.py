"""What ``torch.utils.flop_counter`` counts for the fused operators: two operations a multiply-add.

fvcore needs no handle: `complexity` counts every backend by the one rule of `backends.counting`.
"""

from __future__ import annotations

import math

import torch
from torch.utils.flop_counter import register_flop_formula


@register_flop_formula(torch.ops.dynconv.fused)
def fused_flops(x, weight, kernel, spatial, input, output, *_, out_shape=None, **__) -> int:
    """Twice `complexity`'s multiply-adds: the convolution, and the making of its kernels."""
    from ..backends.counting import multiply_adds

    there = [factor is not None for factor in (kernel, spatial, input, output)]
    return 2 * multiply_adds(x, weight, out_shape, there[0], there[1] or there[2], there[3])


@register_flop_formula(torch.ops.dynconv.fused_backward)
def fused_backward_flops(grad, x, weight, *arguments, **_) -> int:
    """The static convolution's: one more convolution for the input, and one for the weights and factors together."""
    needs = arguments[-1]
    return 2 * (needs[0] + any(needs[1:])) * grad[0] * math.prod(grad[2:]) * math.prod(weight[1:])

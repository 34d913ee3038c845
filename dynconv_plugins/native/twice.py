"""The gradients once more, by operations of torch: what the C functions compute has no derivative of its own.

Nor have the fused kernels of ../kernels, which come here too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..problem import Problem


def differentiable(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], needs: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """The gradients of ``function(*tensors)``, themselves functions of `tensors` and of the output's gradient `grad`.

    Args:
        function: Computes by operations of torch what the operation to be differentiated does.
        tensors: Its arguments.
        needs: Which of them to differentiate by.
        grad: The gradient of its output.
    """
    # As its own tensor each: factors depend on x, and their share of its gradient is not this function's.
    own = [None if t is None else t.view_as(t) for t in tensors]
    wanted = [t for t, needed in zip(own, needs, strict=True) if needed]
    found = iter(torch.autograd.grad(function(*own), wanted, grad, create_graph=True))
    return [next(found) if needed else None for needed in needs]


def convolved(x: Tensor, weight: Tensor, *rest) -> Tensor:
    """What ``dynconv::native`` and ``dynconv::fused`` compute, of the same arguments."""
    from ..backends import gemm  # here: these import the operation
    from ..functional import Attention

    attention, geometry = Attention(*rest[:4]), rest[4:]
    return gemm.run(x, weight, attention, Problem.of(x, weight, attention, *geometry))


def convolved_depthwise(
    x: Tensor, kernels: Tensor, kernel_size: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """What ``dynconv::native_depthwise`` computes, of the same arguments."""
    from ..backends.plain import unfolded
    from ..functional import Attention

    like = x.new_empty(1, x.shape[1], 1, *kernel_size)
    problem = Problem.of(x, like, Attention(), stride, padding, dilation, x.shape[1])
    y = (unfolded(x, problem) * kernels.mT[..., None]).sum(2)
    return y.unflatten(2, problem.out_size)

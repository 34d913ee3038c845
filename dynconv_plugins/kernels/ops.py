"""The fused dynamic convolution as operators that ``torch.compile`` takes as they are, for any batch.

``dynconv::fused`` has no graph break: the compiler sees the operator, the shapes of its fake implementation and its
gradient, which is the operator ``dynconv::fused_backward``. Neither looks into the kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..native.twice import convolved, differentiable
from ..problem import out_size_of
from . import geometry
from .geometry import Geometry


@torch.library.custom_op("dynconv::fused", mutates_args=())
def fused(
    x: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    spatial: Tensor | None,
    input: Tensor | None,
    output: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """``y[b, o, p] = f[b, o] sum_ti (sum_k a[b, k] W[k, o, i, t]) s[b, t] c[b, i] x[b, i, stride p + step t - pad]``

    Args:
        x: ``[B, C_in, *S]`` with one to three spatial dimensions, of fp32, bf16 or fp16 as all the others.
        weight: ``[K, C_out, C_in / groups, *kernel_size]``; the groups follow from it.
        kernel, spatial, input, output: The factors of `Attention`. Without `kernel` there is one kernel.
        stride, padding, dilation: One per spatial dimension.

    Returns:
        ``[B, C_out, *S_out]`` in `x`'s memory format.
    """
    from . import launch

    _check(x, weight, kernel, spatial, input, output)
    y = _result(x, weight, stride, padding, dilation)
    launch.forward(x, weight, [kernel, spatial, input, output], Geometry.of(stride, padding, dilation), y)
    return y


@torch.library.custom_op("dynconv::fused_backward", mutates_args=())
def fused_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    spatial: Tensor | None,
    input: Tensor | None,
    output: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    needs: list[bool],
) -> list[Tensor]:
    """The gradients of `fused` to x, weight, kernel, spatial, input and output; an empty tensor where not needed."""
    from . import launch

    factors, shape = [kernel, spatial, input, output], Geometry.of(stride, padding, dilation)
    grads: list[Tensor | None] = [None] * 6
    if needs[0]:
        # Not in x's strides: where a sample is spread too far for 32 bits, `geometry.maps` makes a copy.
        grads[0] = geometry.result_like(x, x.shape)
        launch.backward_input(grad, weight, factors, shape, grads[0])
    if any(needs[1:]):
        grads[1:] = launch.backward_factors(x, grad, weight, factors, shape, needs[1:])
    return [x.new_empty(0) if g is None else g for g in grads]


def _check(x: Tensor, weight: Tensor, kernel: Tensor | None, *factors: Tensor | None) -> None:
    if kernel is None and len(weight) > 1:
        raise ValueError("without a kernel attention there must be one kernel: add them up first")
    others = {t.dtype for t in (weight, kernel, *factors) if t is not None} - {x.dtype}
    if others:
        raise ValueError(f"x is {x.dtype}, but other arguments are {', '.join(sorted(map(str, others)))}")


def _result(x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]) -> Tensor:
    size = out_size_of(x.shape[2:], weight.shape[3:], stride, padding, dilation)
    return geometry.result_like(x, (x.shape[0], weight.shape[1], *size))


@fused.register_fake
def _(x, weight, kernel, spatial, input, output, stride, padding, dilation):
    return _result(x, weight, stride, padding, dilation)


@fused_backward.register_fake
def _(grad, x, weight, kernel, spatial, input, output, stride, padding, dilation, needs):
    inputs = (x, weight, kernel, spatial, input, output)
    grads = [torch.empty_like(t) if need else x.new_empty(0) for t, need in zip(inputs, needs, strict=True)]
    if needs[0]:
        grads[0] = geometry.result_like(x, x.shape)
    return grads


def _setup_context(ctx, inputs, output) -> None:
    *tensors, stride, padding, dilation = inputs
    ctx.save_for_backward(*tensors)
    ctx.shape = stride, padding, dilation


def _backward(ctx, grad: Tensor):
    needs = list(ctx.needs_input_grad[:6])
    if torch.is_grad_enabled():  # by create_graph=True
        x, weight = ctx.saved_tensors[:2]
        groups = x.shape[1] // weight.shape[2]
        grads = differentiable(lambda *t: convolved(*t, *ctx.shape, groups), ctx.saved_tensors, needs, grad)
    else:
        grads = fused_backward(grad, *ctx.saved_tensors, *ctx.shape, needs)
    return *(g if need else None for g, need in zip(grads, needs, strict=True)), None, None, None


fused.register_autograd(_backward, setup_context=_setup_context)

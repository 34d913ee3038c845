"""The operation ``dynconv::native`` with its gradient, as torch, its compiler and its profiler know operations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..problem import out_size_of
from .calls import Call, Factors, connections
from .twice import convolved, differentiable


def rows_of(x: Tensor) -> Tensor:
    """``[B, C, *S]`` as ``[B, positions, C]``; a copy unless the channels are last in memory."""
    return x.movedim(1, -1).contiguous().flatten(1, -2)


def _factors(x: Tensor, weight: Tensor, given: tuple[Tensor | None, ...]) -> Factors:
    """All four, contiguous; an absent one is one everywhere."""
    batch, taps = len(x), math.prod(weight.shape[3:])
    widths = (len(weight), taps, x.shape[1], weight.shape[1])
    pairs = zip(given, widths, strict=True)
    # Not x.new_ones: fastai's tensors have one of their own.
    ones = functools.partial(torch.ones, dtype=x.dtype)
    return tuple(ones(batch, n) if t is None else t.reshape(batch, n).contiguous() for t, n in pairs)


def _calls(x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int):
    """The convolution's call, a function that makes the one back to its input, and its output size."""
    size, kernel_size = tuple(x.shape[2:]), tuple(weight.shape[3:])
    out_size = out_size_of(size, kernel_size, stride, padding, dilation)
    read, written, start = connections(size, out_size, kernel_size, tuple(stride), tuple(padding), tuple(dilation))
    rows = (math.prod(size), math.prod(out_size))
    forth = Call(weight, groups, read, written, start, len(x), rows)

    def back() -> Call:
        return Call(forth.weight, groups, written, read, start, len(x), rows[::-1], transposed=True)

    return forth, back, out_size


def operation(name: str, function: Callable, fake: Callable) -> Callable:
    """Registers ``dynconv::name``, for CPUs, and returns it.

    By torch's own steps, not by `torch.library.custom_op`: that imports the compiler on the first call, a second.
    """
    torch.library.define(f"dynconv::{name}", torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(f"dynconv::{name}", "CPU", function)
    torch.library.register_fake(f"dynconv::{name}", fake)
    return getattr(torch.ops.dynconv, name).default


def _native(
    x: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    spatial: Tensor | None,
    input: Tensor | None,
    output: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """``[B, C_in, *S]`` to ``[B, C_out, *S_out]``, channels last in memory; arguments as of `dynamic_conv`."""
    forth, _, out_size = _calls(x, weight, stride, padding, dilation, groups)
    y = forth.convolve(rows_of(x), _factors(x, weight, (kernel, spatial, input, output)))
    return y.unflatten(1, out_size).movedim(-1, 1)


def _native_fake(x, weight, kernel, spatial, input, output, stride, padding, dilation, groups):
    out_size = out_size_of(x.shape[2:], weight.shape[3:], stride, padding, dilation)
    return x.new_empty(x.shape[0], *out_size, weight.shape[1]).movedim(-1, 1)


def _gradients(
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
    groups: int,
    for_x: bool,
    for_rest: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x and, in one pass, of the kernels and all four factors; empty where not asked for."""
    given = (kernel, spatial, input, output)
    a, s, c, f = factors = _factors(x, weight, given)
    forth, back, _ = _calls(x, weight, stride, padding, dilation, groups)
    rows = rows_of(grad)
    grads = [x.new_empty(0) for _ in range(6)]
    if for_x:
        # The same convolution with source and destination exchanged, and with them their factors.
        grads[0] = back().convolve(rows, (a, s, f, c)).unflatten(1, x.shape[2:]).movedim(-1, 1)
    if for_rest:
        dw, *factor_grads = forth.gradient(rows_of(x), rows, factors)
        # A weight in neither of pack.c's orders was copied; the compiler was promised its own.
        like = torch.empty_like(weight, device="meta")
        grads[1] = dw if dw.stride() == like.stride() else torch.empty_like(weight).copy_(dw)
        grads[2:] = [
            x.new_empty(0) if t is None else d.reshape(t.shape) for d, t in zip(factor_grads, given, strict=True)
        ]
    return tuple(grads)


def _gradients_fake(
    grad, x, weight, kernel, spatial, input, output, stride, padding, dilation, groups, for_x, for_rest
):
    grads = [x.new_empty(0) for _ in range(6)]
    if for_x:
        grads[0] = x.new_empty(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)
    if for_rest:
        grads[1] = torch.empty_like(weight)
        given = (kernel, spatial, input, output)
        grads[2:] = [x.new_empty(0 if t is None else t.shape) for t in given]
    return tuple(grads)


def _setup(ctx, inputs, output) -> None:
    tensors, ctx.geometry = inputs[:6], inputs[6:]
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad: Tensor):
    needs = ctx.needs_input_grad[:6]
    if torch.is_grad_enabled():  # by create_graph=True
        grads = differentiable(lambda *t: convolved(*t, *ctx.geometry), ctx.saved_tensors, needs, grad)
    else:
        grads = _native_backward(grad, *ctx.saved_tensors, *ctx.geometry, needs[0], any(needs[1:]))
    return *(g if needed else None for g, needed in zip(grads, needs, strict=True)), *(None,) * 4


native = operation("native", _native, _native_fake)
_native_backward = operation("native_backward", _gradients, _gradients_fake)
torch.library.register_autograd("dynconv::native", _backward, setup_context=_setup)

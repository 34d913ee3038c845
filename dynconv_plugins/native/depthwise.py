"""The operation ``dynconv::native_depthwise``: one filter per channel and sample."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from ..problem import out_size_of
from .calls import connections
from .library import library
from .op import operation, rows_of
from .recent import recent
from .twice import convolved_depthwise, differentiable


class _Depthwise(ctypes.Structure):
    """What depthwise.c calls a Depthwise."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("batch", "taps", "channels", "src_rows", "dst_rows", "threads")),
        ("near", ctypes.c_void_p),
    ]


@recent(256 * 2**20)
def _neighbours(size, kernel_size, stride, padding, dilation) -> tuple[Tensor, Tensor]:
    """Which input position each tap reads for each output position, and the way back; -1 where there is none."""
    out_size = out_size_of(size, kernel_size, stride, padding, dilation)
    read, written, start = connections.__wrapped__(size, out_size, kernel_size, stride, padding, dilation)
    taps = len(start) - 1
    tap = torch.repeat_interleave(torch.arange(taps), start.diff())
    forth = torch.full((math.prod(out_size), taps), -1, dtype=torch.int32)
    back = torch.full((math.prod(size), taps), -1, dtype=torch.int32)
    forth[written.long(), tap] = read
    back[read.long(), tap] = written
    return forth, back


def _call(name: str, near: Tensor, rows: tuple[int, int], x: Tensor, other: Tensor, out: Tensor) -> Tensor:
    """Runs ``name(z, x, other, out)``, all contiguous with channels last; `rows` are source's and destination's."""
    z = _Depthwise(len(x), near.shape[1], x.shape[-1], *rows, torch.get_num_threads(), near.data_ptr())
    function = getattr(library(x.dtype), name)
    function.argtypes, function.restype = [ctypes.POINTER(_Depthwise)] + [ctypes.c_void_p] * 3, None
    function(ctypes.byref(z), x.data_ptr(), other.data_ptr(), out.data_ptr())
    return out


def _convolved(
    x: Tensor,
    kernels: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """``[B, C, *S]`` and kernels ``[B, taps, C]`` to ``[B, C, *S_out]``, channels last in memory."""
    geometry = tuple(x.shape[2:]), *map(tuple, (kernel_size, stride, padding, dilation))
    near, _ = _neighbours(*geometry)
    rows, out_size = rows_of(x), out_size_of(*geometry)
    y = x.new_empty(len(x), len(near), x.shape[1])
    _call("depthwise", near, (rows.shape[1], len(near)), rows, kernels.contiguous(), y)
    return y.unflatten(1, out_size).movedim(-1, 1)


def _convolved_fake(x, kernels, kernel_size, stride, padding, dilation):
    out_size = out_size_of(x.shape[2:], kernel_size, stride, padding, dilation)
    return x.new_empty(x.shape[0], *out_size, x.shape[1]).movedim(-1, 1)


def _gradients(
    grad: Tensor,
    x: Tensor,
    kernels: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    for_x: bool,
    for_kernels: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the kernels; empty where not asked for."""
    near, back = _neighbours(tuple(x.shape[2:]), *map(tuple, (kernel_size, stride, padding, dilation)))
    rows, kernels = rows_of(grad), kernels.contiguous()
    grad_x, grad_kernels = x.new_empty(0), x.new_empty(0)
    if for_x:
        grad_x = x.new_empty(len(x), len(back), x.shape[1])
        _call("depthwise", back, (len(near), len(back)), rows, kernels, grad_x)
        grad_x = grad_x.unflatten(1, x.shape[2:]).movedim(-1, 1)
    if for_kernels:
        grad_kernels = torch.empty_like(kernels)
        _call("depthwise_gradient", near, (len(back), len(near)), rows_of(x), rows, grad_kernels)
    return grad_x, grad_kernels


def _gradients_fake(grad, x, kernels, kernel_size, stride, padding, dilation, for_x, for_kernels):
    grad_x = x.new_empty(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1) if for_x else x.new_empty(0)
    return grad_x, x.new_empty(kernels.shape if for_kernels else 0)


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.geometry = inputs[2:]


def _backward(ctx, grad: Tensor):
    needs = ctx.needs_input_grad[:2]
    if torch.is_grad_enabled():  # by create_graph=True
        grads = differentiable(lambda *t: convolved_depthwise(*t, *ctx.geometry), ctx.saved_tensors, needs, grad)
    else:
        grads = _native_depthwise_backward(grad, *ctx.saved_tensors, *ctx.geometry, *needs)
    return *(g if needed else None for g, needed in zip(grads, needs, strict=True)), *(None,) * 4


native_depthwise = operation("native_depthwise", _convolved, _convolved_fake)
_native_depthwise_backward = operation("native_depthwise_backward", _gradients, _gradients_fake)
torch.library.register_autograd("dynconv::native_depthwise", _backward, setup_context=_setup)

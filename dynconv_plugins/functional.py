"""The one equation every dynamic convolution is an instance of, and the one function that executes it.

    y_b = f_b * conv( c_b * x_b ,  sum_k  a_bk * ( s_b * W_k ) ) + bias

Each factor is optional, and the sum over the kernels may be their maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .backends import choose_backend
from .problem import Problem

_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


class Attention(NamedTuple):
    """The four input-dependent factors of a dynamic convolution; an absent one is ``None`` and costs nothing.

    Attributes:
        kernel: Which of the K kernels, ``[B, K]``, or per output position ``[B, K, *S_out]``.
        spatial: Which taps of the kernel, ``[B, *kernel_size]``.
        input: Which input channels, ``[B, C_in]``.
        output: Which output channels (filters), ``[B, C_out]``.
    """

    kernel: Tensor | None = None
    spatial: Tensor | None = None
    input: Tensor | None = None
    output: Tensor | None = None


def dynamic_conv(
    x: Tensor,
    weight: Tensor,
    attention: Attention,
    *,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    combine: str = "sum",
) -> Tensor:
    """Convolves each sample with its own kernel, by whichever backend is the cheapest for the shape.

    Args:
        x: ``[B, C_in, *S]`` with one, two or three spatial dimensions.
        weight: The K kernels, ``[K, C_out, C_in / groups, *kernel_size]``.
        attention: The factors; without ``kernel`` the K kernels are summed unweighted.
        bias: ``[C_out]``, added last and not modulated.
        stride, padding, dilation: An integer or one per spatial dimension. Zeros are padded, on both sides; for other
            paddings, ``'same'`` among them, see `DynamicConv`.
        groups: As in ``torch.nn.functional.conv2d``.
        combine: How the outputs of the K kernels become one: ``'sum'``, or ``'max'`` for each value's maximum.

    Returns:
        ``[B, C_out, *S_out]``, in `x`'s dtype (under autocast in autocast's).

    Raises:
        ValueError: If shapes, dtypes or devices do not fit together, `combine` is another word, or a forced backend
            cannot run this.
        TypeError: If `stride`, `padding` or `dilation` are no integers.
        UserError: If ``DYNCONV_BACKEND`` or ``DYNCONV_COSTS`` name what there is not.

    Source: ODConv (ICLR 2022) eq. 2, which contains CondConv's and DyConv's; per position, A2D2C eq. 8.
    """
    device = x.device.type
    # Shapes on the meta device have no autocast to ask for.
    if device == "meta" or x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return _execute(x, weight, attention, bias, stride, padding, dilation, groups, combine)
    # Every backend then sees one dtype, and none has to know which of its operations autocast would cast.
    dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        return _execute(x.to(dtype), weight.to(dtype), attention, bias, stride, padding, dilation, groups, combine)


def _execute(x, weight, attention, bias, stride, padding, dilation, groups, combine) -> Tensor:
    attention = Attention(*(None if t is None else t.to(x.dtype) for t in attention))
    problem = Problem.of(x, weight, attention, stride, padding, dilation, groups, combine)
    if bias is not None and tuple(bias.shape) != (problem.c_out,):
        raise ValueError(f"the bias must be {[problem.c_out]}, got {list(bias.shape)}")
    if bias is not None and bias.device != x.device:
        raise ValueError(f"the bias is on {bias.device}, x on {x.device}: bring them together")
    y = choose_backend(problem).run(x, weight, attention, problem)
    # A network keeps one memory format, whatever the backend works in.
    y = y.contiguous(memory_format=_LAST[problem.dims] if problem.channels_last else torch.contiguous_format)
    return y if bias is None else y + bias.to(x.dtype).reshape(-1, *(1,) * problem.dims)

"""The input patches under sampled output positions of a convolution, averaged, in one matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..problem import out_size_of

SAMPLINGS = ("random", "fixed", "none")


def sampled_patches(
    x: Tensor,
    where: Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Averages the patches that a convolution reads for some of its output positions.

    Args:
        x: ``[B, C, *S]``.
        where: Output positions as parts of 1 in reading order, ``[sets, points]`` in [0, 1); ``None`` takes all, once.
        kernel_size, stride, padding, dilation: The convolution's, one per spatial dimension; zeros are padded.

    Returns:
        ``[B, C, taps, sets]``.
    """
    size = x.shape[2:]
    out = out_size_of(size, kernel_size, stride, padding, dilation)
    total = math.prod(out)
    everywhere = torch.arange(total, device=x.device)[None]
    at = everywhere if where is None else (where * total).long().clamp(max=total - 1)
    # For each sampled position and tap the input position it reads; what lies in the padding has no weight.
    taps = torch.cartesian_prod(*(torch.arange(k, device=x.device) for k in kernel_size)).reshape(-1, len(size))
    read = torch.zeros((), dtype=torch.long, device=x.device)
    inside = torch.ones((), dtype=torch.bool, device=x.device)
    for i in range(len(size)):
        coordinate = at // math.prod(out[i + 1 :]) % out[i]
        coordinate = coordinate[:, None] * stride[i] - padding[i] + taps[:, i, None] * dilation[i]
        inside = inside & (coordinate >= 0) & (coordinate < size[i])
        read = read * size[i] + coordinate.clamp(0, size[i] - 1)
    weight = inside.to(x.dtype) / at.shape[1]
    # A row for each set and tap: how often it reads each input position. One product then averages everything.
    rows = x.new_zeros(len(at) * len(taps), math.prod(size))
    rows = rows.scatter_add(1, read.flatten(0, 1), weight.flatten(0, 1))
    return (x.flatten(2) @ rows.t()).unflatten(2, (len(at), len(taps))).transpose(2, 3)

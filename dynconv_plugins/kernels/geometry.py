"""Tensors and sizes in the one form that the kernels read: three spatial dimensions, the missing ones of size 1."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Three = tuple[int, int, int]
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Geometry:
    """Where tap ``t`` of position ``p`` reads: ``stride p + step t + start``, in each of the three dimensions."""

    stride: Three
    step: Three
    start: Three

    @classmethod
    def of(cls, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> Geometry:
        """A convolution's."""
        return cls(_three(stride, 1), _three(dilation, 1), _three([-p for p in padding], 0))

    def numbers(self) -> tuple[int, ...]:
        """As the kernels take them."""
        return *self.stride, *self.step, *self.start


def maps(x: Tensor) -> Tensor:
    """``[B, C, *S]`` as a view with three spatial dimensions; a copy only where a sample's offsets need 64 bits."""
    if sum((n - 1) * step for n, step in zip(x.shape[1:], x.stride()[1:], strict=True)) > _LARGEST:
        x = x.contiguous()
    return x[(slice(None), slice(None)) + (None,) * (5 - x.dim())]


def filters(weight: Tensor) -> Tensor:
    """``[K, C_out, C_in / groups, *kernel]`` to ``[K, C_out, t0, t1, t2, C_in / groups]``, innermost side by side.

    A copy, which is read by the whole batch, unless the weight lies in memory like this already.
    """
    weight = weight.movedim(2, -1).contiguous()
    return weight[(slice(None), slice(None)) + (None,) * (6 - weight.dim())]


def taps(spatial: Tensor) -> Tensor:
    """``[B, *kernel]`` with three spatial dimensions."""
    spatial = spatial.contiguous()
    return spatial[(slice(None),) + (None,) * (4 - spatial.dim())]


@dataclass(frozen=True)
class Phase:
    """Input positions that lie alike within the stride: to them the gradient is a convolution of stride 1.

    `where` picks the positions and `which` the taps that reach them.
    """

    where: tuple[slice, ...]
    which: tuple[slice, ...]
    geometry: Geometry


def phases(forward: Geometry, size: Sequence[int], kernel_size: Sequence[int]) -> Iterator[Phase]:
    """The transposed convolution, phase by phase: no product with the zeros that a stride would insert.

    With ``stride q + step t + start = j`` an input position ``j = phase + stride m`` gets tap t's gradient from
    ``q = m + (phase - start - step t) / stride``, wherever that is an integer.
    """
    dims = zip(forward.stride, forward.step, forward.start, size, kernel_size, strict=True)
    options = [list(_phases(*dim)) for dim in dims]
    for chosen in itertools.product(*options):
        where, which, step, start = zip(*chosen, strict=True)
        yield Phase(where, which, Geometry((1, 1, 1), step, start))


def _phases(stride: int, step: int, start: int, size: int, taps: int) -> Iterator[tuple[slice, slice, int, int]]:
    for phase in range(min(stride, size)):
        reached = [t for t in range(taps) if (phase - start - step * t) % stride == 0]
        first = reached[0] if reached else 0
        apart = reached[1] - first if len(reached) > 1 else max(taps, 1)
        which = slice(first, taps if reached else 0, apart)
        yield slice(phase, None, stride), which, -(step * apart // stride), (phase - start - step * first) // stride


def _three(values: Sequence[int], missing: int) -> Three:
    return (missing,) * (3 - len(values)) + tuple(values)


def result_like(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Uninitialised, in `x`'s memory format: channels last, or else contiguous."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    is_last = last is not None and x.is_contiguous(memory_format=last) and not x.is_contiguous()
    memory_format = last if is_last else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)

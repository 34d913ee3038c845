"""The C functions on tensors: activations ``[B, positions, channels]``, kernels in torch's order."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import threading

import torch
from torch import Tensor

from .library import Shape, Strides, library
from .recent import recent

_memory = threading.local()

Factors = tuple[Tensor, Tensor, Tensor, Tensor]


# A ResNet-50 has 15 at one size of its input, the same in both modes; one of 3x3 taps at 1024 x 2048 takes 150 MB.
@recent(256 * 2**20)
def connections(
    size: tuple[int, ...],
    out_size: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Which input position each tap reads for which output position, tap after tap.

    Returns:
        Numbers of input positions, of output positions, and where each tap's begin, all int32.
    """
    read, written, start = [], [], [0]
    for tap in itertools.product(*(range(k) for k in kernel_size)):
        inputs = outputs = torch.zeros(1, dtype=torch.int32)
        for i, n, o, s, p, d in zip(tap, size, out_size, stride, padding, dilation, strict=True):
            to = torch.arange(o, dtype=torch.int32)
            at = to * s + (i * d - p)
            inside = (at >= 0) & (at < n)
            inputs = (inputs[:, None] * n + at[inside]).flatten()
            outputs = (outputs[:, None] * o + to[inside]).flatten()
        read.append(inputs)
        written.append(outputs)
        start.append(start[-1] + len(inputs))
    return torch.cat(read), torch.cat(written), torch.tensor(start, dtype=torch.int32)


def scratch(use: str, size: int, dtype: torch.dtype) -> Tensor:
    """Memory that the next call for the same use in this thread writes over.

    Kept, because fresh pages for a large layer's kernels take longer to get than the convolution.
    """
    kept = _memory.__dict__
    if (use, dtype) not in kept or kept[use, dtype].numel() < size:
        with torch.inference_mode(False):  # or it could not be written to outside of it
            kept[use, dtype] = torch.empty(size, dtype=dtype)
    return kept[use, dtype][:size]


def _address(tensor: Tensor) -> int:
    return tensor.data_ptr()


class Call:
    """One direction through a convolution: `weight` is read as ``[K, groups, out, in, taps]``.

    Args:
        weight: The K kernels, ``[K, C_out, C_in / groups, *kernel_size]``, in any order; all else is of its type.
        groups: Of the convolution.
        read, written, start: From `connections`.
        batch: Samples.
        rows: Positions of source and destination.
        transposed: Whether source and destination change places: input channels are then what is computed.
    """

    def __init__(
        self,
        weight: Tensor,
        groups: int,
        read: Tensor,
        written: Tensor,
        start: Tensor,
        batch: int,
        rows: tuple[int, int],
        transposed: bool = False,
    ) -> None:
        self.library = library(weight.dtype)
        self.weight = weight if _tap_stride(weight) else weight.contiguous()
        kernels, c_out, c_in = weight.shape[:3]
        self.out, self.in_ = (c_in, c_out // groups) if transposed else (c_out // groups, c_in)
        self.transposed, self.groups = transposed, groups
        self.keep = (read, written, start)
        self.shape = Shape(
            batch=batch,
            kernels=kernels,
            taps=len(start) - 1,
            in_=self.in_,
            out=self.out,
            groups=groups,
            src_rows=rows[0],
            dst_rows=rows[1],
            vectors=self.library.vectors_for(self.out),
            threads=torch.get_num_threads(),
            from_=_address(read),
            to=_address(written),
            offset=_address(start),
        )
        width = self.library.width_of(self.shape.vectors)
        self.blocks = -(-self.out // width)
        self.packed_size = self.library.packed_size(ctypes.byref(self.shape))

    def _strides(self, weight: Tensor) -> Strides:
        k, o, i = weight.stride()[:3]
        c_out, c_in, *kernel_size = weight.shape[1:]
        # Of a single channel the stride may be anything, and pack.c knows the order by which stride is the smaller.
        i = math.prod(kernel_size) if c_in == 1 else i
        o = c_in * math.prod(kernel_size) if c_out == 1 else o
        group = o * (weight.shape[1] // self.groups)
        out, in_ = (i, o) if self.transposed else (o, i)
        return Strides(kernel=k, group=group, out=out, in_=in_, tap=_tap_stride(weight))

    @functools.cached_property
    def packed(self) -> Tensor:
        """The kernels in the order the C functions read them."""
        packed = scratch(f"packed {self.transposed}", self.packed_size, self.weight.dtype)
        by = ctypes.byref(self._strides(self.weight))
        _check(self.library.pack(ctypes.byref(self.shape), by, _address(self.weight), _address(packed)))
        return packed

    def convolve(self, x: Tensor, factors: Factors) -> Tensor:
        """``[B, src_rows, groups * in]`` to ``[B, dst_rows, groups * out]``; factors a, s, c (of x) and f."""
        y = x.new_zeros(self.shape.batch, self.shape.dst_rows, self.groups * self.out)
        tensors = (x, self.packed, *factors, y)
        _check(self.library.convolve(ctypes.byref(self.shape), *map(_address, tensors)))
        return y

    def gradient(self, x: Tensor, g: Tensor, factors: Factors) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The gradients of the kernels, in the order of `weight`, and of a, s, c and f; `g` is the output's."""
        z, new = self.shape, functools.partial(torch.zeros, dtype=x.dtype)
        pieces = self.library.gradient_pieces(ctypes.byref(z))
        dw = scratch("gradient", self.packed_size, x.dtype)
        da = new(self.groups * self.blocks * z.taps * pieces, z.batch, z.kernels)
        ds = new(self.groups * self.blocks * pieces, z.batch, z.taps)
        dc = new(self.blocks * z.taps, z.batch, self.groups * self.in_)
        df = new(z.taps * pieces, z.batch, self.groups * self.out)
        tensors = (x, g, self.packed, *factors, dw, da, ds, dc, df)
        _check(self.library.gradient(ctypes.byref(z), *map(_address, tensors)))
        weight = torch.empty_like(self.weight)
        if not z.batch:
            dw.zero_()
        by = ctypes.byref(self._strides(weight))
        _check(self.library.unpack(ctypes.byref(z), by, _address(dw), _address(weight)))
        return weight, da.sum(0), ds.sum(0), dc.sum(0), df.sum(0)


def _tap_stride(weight: Tensor) -> int:
    """How far apart a kernel's taps are in memory, or 0 where a filter's values are in neither of pack.c's orders.

    Neither are those of filters that share memory, as expanded ones do.
    """
    c_out, c_in, *kernel_size = weight.shape[1:]
    o, i, *taps = weight.stride()[1:]
    if c_out > 1 and o < c_in * math.prod(kernel_size):
        return 0
    for first, channel in ((1, math.prod(kernel_size)), (c_in, 1)):
        strides = [first * math.prod(kernel_size[d + 1 :]) for d in range(len(kernel_size))]
        same = [s == e or n == 1 for s, e, n in zip(taps, strides, kernel_size, strict=True)]
        if all(same) and (i == channel or c_in == 1):
            return first
    return 0


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("not enough memory for a block of kernels")

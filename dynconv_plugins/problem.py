"""What a backend needs to know of one dynamic convolution before it runs."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd import forward_ad

if TYPE_CHECKING:
    from .functional import Attention


def ntuple(value: int | Sequence[int], n: int, name: str) -> tuple[int, ...]:
    """Returns `value` as a tuple of `n` integers.

    Raises:
        TypeError: If it is no integer and no sequence of integers.
        ValueError: If it is a sequence of another length, or negative; zero is a padding only.
    """
    try:
        value = (value,) * n if isinstance(value, numbers.Integral) else tuple(map(operator.index, value))
    except TypeError:
        raise TypeError(f"{name} must be an integer or {n} of them, got {value!r}") from None
    if len(value) != n:
        raise ValueError(f"{name} must be an integer or {n} of them, got {value}")
    least = 0 if name == "padding" else 1
    if min(value) < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return tuple(int(v) for v in value)


def out_size_of(
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:
    """A convolution's spatial output size."""
    every = zip(size, kernel_size, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in every)


def transforming() -> bool:
    """Whether torch.func's grad, vmap and the like are at work; what exporters do of their own is not meant."""
    return not torch.compiler.is_exporting() and torch._C._are_functorch_transforms_active()


@dataclass(frozen=True)
class Problem:
    """Shapes and circumstances of one call; everything the choice of a backend may depend on.

    Sizes are in elements; `size` is the input's and `out_size` the output's spatial size.

    Attributes:
        factors: Names of the fields of `Attention` that are there.
        per_position: Whether the kernel attention is one per output position.
        grad: Whether a backward pass may follow.
        traced: Whether a graph is being made, by a compiler, an exporter or torch.func: the choice then has to hold for
            every batch, and a graph of plain operations is wanted where there is one.
        exported: Whether that graph leaves the process, and so must hold torch's own operations only.
        transformed: Whether torch.func or forward-mode derivatives are at work, which know torch's operations only.
    """

    batch: int
    kernels: int
    c_in: int
    c_out: int
    groups: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    size: tuple[int, ...]
    out_size: tuple[int, ...]
    factors: frozenset[str]
    per_position: bool
    dtype: torch.dtype
    device: str
    channels_last: bool
    grad: bool
    traced: bool
    exported: bool
    combine: str = "sum"
    transformed: bool = False

    @classmethod
    def of(
        cls,
        x: Tensor,
        weight: Tensor,
        attention: Attention,
        stride: int | Sequence[int],
        padding: int | Sequence[int],
        dilation: int | Sequence[int],
        groups: int,
        combine: str = "sum",
    ) -> Problem:
        """Reads the problem off the arguments of `dynamic_conv` and checks that they fit together."""
        if combine not in ("sum", "max"):
            raise ValueError(f"combine must be 'sum' or 'max', got {combine!r}")
        dims = x.dim() - 2
        if dims not in (1, 2, 3) or weight.dim() != dims + 3:
            raise ValueError(
                f"expected x [B, C_in, *S] with 1 to 3 spatial dimensions and weight [K, C_out, C_in/groups, *kernel], "
                f"got {list(x.shape)} and {list(weight.shape)}"
            )
        if x.dtype != weight.dtype or x.device != weight.device:
            raise ValueError(
                f"x is {x.dtype} on {x.device}, weight is {weight.dtype} on {weight.device}: "
                f"bring both to one type and device"
            )
        kernels, c_out, c_in_g, *kernel_size = weight.shape
        batch, c_in, *size = x.shape
        if min(kernels, c_in, c_out, *kernel_size) < 1:
            raise ValueError(
                f"a layer needs kernels, channels and taps, got x {list(x.shape)} and weight {list(weight.shape)}"
            )
        if c_in != c_in_g * groups or c_out % groups:
            raise ValueError(
                f"x has {c_in} channels, but weight {list(weight.shape)} with groups={groups} expects "
                f"{c_in_g * groups} and a number of output channels divisible by {groups}"
            )
        stride, padding, dilation = (
            ntuple(v, dims, n) for v, n in ((stride, "stride"), (padding, "padding"), (dilation, "dilation"))
        )
        out_size = out_size_of(size, kernel_size, stride, padding, dilation)
        if min(out_size) < 1:
            raise ValueError(f"input of size {size} is smaller than the kernel {kernel_size} with padding {padding}")
        expected = {
            "kernel": (batch, kernels),
            "spatial": (batch, *kernel_size),
            "input": (batch, c_in),
            "output": (batch, c_out),
        }
        per_position = attention.kernel is not None and attention.kernel.dim() > 2
        if per_position:
            expected["kernel"] += out_size
        for name, shape in expected.items():
            factor = getattr(attention, name)
            if factor is not None and tuple(factor.shape) != shape:
                raise ValueError(f"the {name} attention must be {list(shape)}, got {list(factor.shape)}")
            if factor is not None and factor.device != x.device:
                raise ValueError(f"the {name} attention is on {factor.device}, x on {x.device}: bring them together")
        tensors = (x, weight, *(t for t in attention if t is not None))
        compiling = torch.compiler.is_compiling()
        # Transforms know torch's operations, not ours, and no memory formats. The level is that of eager forward mode.
        transformed = transforming() or (not compiling and forward_ad._current_level >= 0)
        last = {2: torch.channels_last, 3: torch.channels_last_3d}.get(dims)
        return cls(
            batch=batch,
            kernels=kernels,
            c_in=c_in,
            c_out=c_out,
            groups=groups,
            kernel_size=tuple(kernel_size),
            stride=stride,
            padding=padding,
            dilation=dilation,
            size=tuple(size),
            out_size=out_size,
            factors=frozenset(n for n, t in zip(attention._fields, attention, strict=True) if t is not None),
            per_position=per_position,
            dtype=x.dtype,
            device=x.device.type,
            channels_last=last is not None and not transformed and _channels_last(x, last),
            grad=torch.is_grad_enabled() and any(t.requires_grad for t in tensors),
            traced=compiling or transformed or torch.jit.is_tracing(),
            exported=torch.compiler.is_exporting() or torch.jit.is_tracing(),
            combine=combine,
            transformed=transformed,
        )

    @property
    def dims(self) -> int:
        """Number of spatial dimensions, 1 to 3."""
        return len(self.kernel_size)

    @property
    def samples(self) -> int:
        """The batch as far as costs go: in a traced graph one, so that the choice holds for every batch."""
        return 1 if self.traced else self.batch

    @property
    def taps(self) -> int:
        """Taps of a kernel."""
        return math.prod(self.kernel_size)

    @property
    def positions(self) -> int:
        """Output positions of one sample."""
        return math.prod(self.out_size)

    @property
    def fan_in(self) -> int:
        """Weights behind one output value: ``C_in / groups * taps``."""
        return self.c_in // self.groups * self.taps

    @property
    def depthwise(self) -> bool:
        """One filter per input channel."""
        return self.groups == self.c_in == self.c_out


def _channels_last(x: Tensor, last: torch.memory_format) -> bool:
    """Whether the channels, more than one, are innermost in memory."""
    if torch.compiler.is_compiling():
        # The batch may be unknown: only this stride, which it does not change, may be asked for.
        return x.shape[1] > 1 and x.stride(1) == 1
    return x.is_contiguous(memory_format=last) and not x.is_contiguous()

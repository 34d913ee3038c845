"""The table of shapes that every backend is held to, and how its inputs are made."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dynconv_plugins import Attention
from dynconv_plugins.problem import Problem

ALL = frozenset({"kernel", "spatial", "input", "output"})


@dataclass(frozen=True)
class Case:
    """One row: a shape and which attention factors there are."""

    name: str
    size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    kernels: int = 1
    batch: int = 3
    c_in: int = 6
    c_out: int = 4
    stride: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    factors: frozenset[str] = ALL
    per_position: bool = False
    bias: bool = True
    combine: str = "sum"

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("1d", (11,), (3,), padding=1),
    Case("1d-K4-stride2-even", (12,), (4,), kernels=4, stride=2, padding=1),
    Case("1d-K8-dilation3-long", (40,), (9,), kernels=8, dilation=3, padding=12),
    Case("1d-depthwise-K4", (16,), (5,), kernels=4, c_in=6, c_out=6, groups=6, padding=2),
    Case("2d", (8, 7), (3, 3), padding=1),
    Case("2d-K4", (8, 7), (3, 3), kernels=4, padding=1),
    Case("2d-K8-stride2", (9, 8), (3, 3), kernels=8, stride=2, padding=1),
    Case("2d-stride-2-3-uneven-kernel", (9, 11), (3, 5), kernels=4, stride=(2, 3), padding=(1, 2)),
    Case("2d-dilation2", (9, 9), (3, 3), kernels=4, dilation=2, padding=2),
    Case("2d-even-kernel", (7, 7), (2, 4), kernels=4, padding=(1, 2)),
    Case("2d-no-padding", (6, 6), (3, 3), kernels=4),
    Case("2d-wide-padding", (4, 4), (3, 3), kernels=4, padding=3),
    Case("2d-groups2-K4", (6, 5), (3, 3), kernels=4, groups=2, padding=1),
    Case("2d-depthwise", (6, 5), (3, 3), c_in=6, c_out=6, groups=6, padding=1, factors=ALL - {"kernel", "output"}),
    Case("2d-depthwise-K4", (6, 5), (3, 3), kernels=4, c_in=6, c_out=6, groups=6, stride=2, padding=1),
    Case("2d-depth-multiplier", (6, 5), (3, 3), kernels=4, c_in=4, c_out=8, groups=4, padding=1),
    Case("2d-1x1", (5, 6), (1, 1), factors=ALL - {"kernel", "spatial"}),
    Case("2d-1x1-K4", (5, 6), (1, 1), kernels=4, factors=ALL - {"spatial"}),
    Case("2d-1x1-K4-stride2", (5, 6), (1, 1), kernels=4, stride=2, factors=ALL - {"spatial"}),
    Case("2d-1x1-K4-groups2-padding", (5, 6), (1, 1), kernels=4, groups=2, padding=1, factors=ALL - {"spatial"}),
    Case("2d-batch1-K4", (6, 6), (3, 3), kernels=4, batch=1, padding=1),
    Case("2d-one-position-K4", (3, 3), (3, 3), kernels=4),
    Case("2d-one-pixel-K4", (1, 1), (3, 3), kernels=4, padding=1),
    Case("2d-no-attention", (6, 6), (3, 3), padding=1, factors=frozenset()),
    Case("2d-K4-summed", (6, 6), (3, 3), kernels=4, padding=1, factors=frozenset({"spatial"})),
    Case("2d-K4-kernel-only", (6, 6), (3, 3), kernels=4, padding=1, factors=frozenset({"kernel"})),
    Case("2d-output-only", (6, 6), (3, 3), padding=1, factors=frozenset({"output"}), bias=False),
    Case("2d-K4-input-only-groups2", (6, 6), (3, 3), kernels=4, padding=1, groups=2, factors=frozenset({"input"})),
    Case("2d-spatial-only", (6, 6), (3, 3), padding=1, factors=frozenset({"spatial"})),
    Case("2d-per-position-K4", (6, 5), (3, 3), kernels=4, padding=1, per_position=True),
    Case("2d-per-position-K4-stride2-groups2", (6, 5), (3, 3), 4, stride=2, padding=1, groups=2, per_position=True),
    Case("2d-per-position-K4-no-taps", (6, 5), (3, 3), 4, padding=1, factors=ALL - {"spatial"}, per_position=True),
    Case("2d-per-position-depthwise", (5, 5), (3, 3), 4, c_in=4, groups=4, padding=1, per_position=True),
    Case("2d-max-K1", (5, 5), (3, 3), padding=1, combine="max"),
    Case("2d-max-K4", (8, 7), (3, 3), kernels=4, padding=1, combine="max"),
    Case("2d-max-K4-no-attention", (6, 7), (3, 3), 4, stride=2, padding=1, factors=frozenset(), combine="max"),
    Case("2d-max-K4-no-taps-groups2", (6, 5), (3, 3), 4, groups=2, factors=ALL - {"spatial"}, combine="max"),
    Case("2d-max-K4-taps-only-groups2", (6, 5), (3, 3), 4, groups=2, factors=frozenset({"spatial"}), combine="max"),
    Case("2d-max-K4-depthwise", (5, 6), (3, 3), 4, c_in=4, groups=4, padding=1, dilation=2, combine="max"),
    Case("2d-max-K8-depthwise-no-attention", (5, 6), (3, 3), 8, c_in=4, groups=4, factors=frozenset(), combine="max"),
    Case("2d-max-per-position-K4", (6, 5), (3, 3), 4, stride=2, padding=1, per_position=True, combine="max"),
    Case(
        "2d-max-per-position-K4-no-taps",
        (6, 5),
        (3, 3),
        4,
        2,
        factors=ALL - {"spatial"},
        per_position=True,
        combine="max",
    ),
    Case("1d-max-K2-stride2", (12,), (4,), kernels=2, stride=2, padding=1, combine="max"),
    Case("1d-max-K2-no-attention", (12,), (5,), kernels=2, padding=2, factors=frozenset(), combine="max"),
    Case("3d-max-K4", (4, 5, 4), (3, 2, 3), kernels=4, padding=1, groups=2, combine="max"),
    Case("3d", (4, 5, 4), (3, 3, 3), padding=1),
    Case("3d-K4-stride-dilation", (6, 5, 7), (2, 3, 3), kernels=4, stride=(1, 2, 1), padding=1, dilation=(1, 1, 2)),
    Case("3d-depthwise-K4", (4, 4, 4), (3, 3, 3), kernels=4, c_in=6, c_out=6, groups=6, padding=1),
    Case("3d-1x1-K8", (3, 4, 2), (1, 1, 1), kernels=8, factors=ALL - {"spatial"}),
]


def inputs(case: Case, dtype: torch.dtype = torch.float64, seed: int = 0):
    """Random inputs of `case`: x, weight, attention and bias, all requiring gradients."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, positive: bool = False) -> torch.Tensor:
        make = torch.rand if positive else torch.randn
        return make(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    x = random(case.batch, case.c_in, *case.size)
    weight = random(case.kernels, case.c_out, case.c_in // case.groups, *case.kernel_size)
    kernel = (case.batch, case.kernels)
    if case.per_position:
        kernel += _out_size(case)
    shapes = {
        "kernel": kernel,
        "spatial": (case.batch, *case.kernel_size),
        "input": (case.batch, case.c_in),
        "output": (case.batch, case.c_out),
    }
    attention = Attention(**{n: random(*shape, positive=True) for n, shape in shapes.items() if n in case.factors})
    bias = random(case.c_out) if case.bias else None
    return x, weight, attention, bias


def geometry(case: Case) -> dict:
    """The keyword arguments of `dynamic_conv`."""
    return {n: getattr(case, n) for n in ("stride", "padding", "dilation", "groups", "combine")}


def problem(case: Case) -> Problem:
    """What backends get to know of `case`."""
    x, weight, attention, _ = inputs(case)
    return Problem.of(x, weight, attention, **geometry(case))


def _out_size(case: Case) -> tuple[int, ...]:
    x = torch.zeros(1, case.c_in, *case.size)
    w = torch.zeros(case.c_out, case.c_in // case.groups, *case.kernel_size)
    conv = (torch.conv1d, torch.conv2d, torch.conv3d)[len(case.size) - 1]
    y = conv(x, w, None, case.stride, case.padding, case.dilation, case.groups)
    return tuple(y.shape[2:])

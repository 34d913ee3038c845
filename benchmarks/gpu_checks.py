"""The fused kernels against the reference in float64, outputs and every gradient, for shapes, K, dtypes and layouts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

import dynconv_plugins as dc
from dynconv_plugins.backends import force, fused, reference

from .gpu_timing import KERNELS, LAYERS, QUICK, in_a_line

# The largest error, relative by norm, that rounding explains: of the inputs' dtype, twice, for what a tile and a result
# lose; in fp32, of sums in another order.
LIMITS = {"fp32": 1e-5, "tf32": 4e-3, "bf16": 1.6e-2, "fp16": 2e-3}
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True)
class Shape:
    """One convolution; all four attentions, but no taps to scale where the kernel has one."""

    name: str
    batch: int
    c_in: int
    c_out: int
    size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    tuned: bool = False  # Whether with the tile that Triton finds for it, not the one that fits everywhere


SHAPES = [
    Shape("64 @ 56", 4, 64, 64, (56, 56), (3, 3), padding=1),
    Shape("64 -> 128 @ 56, stride 2", 4, 64, 128, (56, 56), (3, 3), stride=2, padding=1),
    Shape("256 @ 14", 8, 256, 256, (14, 14), (3, 3), padding=1),
    Shape("512 @ 7", 8, 512, 512, (7, 7), (3, 3), padding=1),
    Shape("512 @ 2", 16, 512, 512, (2, 2), (3, 3), padding=1),
    Shape("256 -> 512 @ 14, 1x1, stride 2", 4, 256, 512, (14, 14), (1, 1), stride=2),
    Shape("odd: 67 -> 45 @ 19x13, dilation 2", 3, 67, 45, (19, 13), (3, 2), padding=2, dilation=2),
    Shape("groups: 128 @ 14 in 4", 4, 128, 128, (14, 14), (3, 3), padding=1, groups=4),
    Shape("1-D: 128 @ 176, 8 taps", 4, 128, 128, (176,), (8,), padding=4),
    Shape("3-D: 32 @ 9x8x7", 2, 32, 48, (9, 8, 7), (3, 3, 3), stride=2, padding=1),
]
SMALL = [
    Shape("17 -> 18 @ 7x6", 2, 17, 18, (7, 6), (2, 2), padding=1),
    Shape("16 @ 3x3", 3, 16, 16, (3, 3), (2, 2), stride=2, padding=1),
]


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        errors: Of the output ``y`` and of each gradient, relative by norm.
        problem: Why there are none: the error that was raised.
    """

    shape: str
    kernels: int
    dtype: str
    layout: str
    errors: dict[str, float]
    problem: str = ""

    @property
    def worst(self) -> str:
        """The tensor of the largest error; of one that is not a number before all."""
        return max(self.errors, key=lambda name: (self.errors[name] != self.errors[name], self.errors[name]))

    @property
    def passed(self) -> bool:
        """Whether every error is below the limit; one that is not a number is not."""
        return not self.problem and all(error <= LIMITS[self.dtype] for error in self.errors.values())


# K and dtype; each in both layouts. What is timed comes first.
_TIMED = [(k, "bf16") for k in KERNELS]
_KINDS = [*_TIMED, (4, "fp32"), (1, "tf32"), (8, "fp16")]


def checks(device: str, quick: bool, small: bool, batch: int) -> Iterator[Check]:
    """All comparisons, one at a time; `small` is for the interpreter, `quick` for what is timed and a few more.

    Not every combination: nearly each has kernels of its own, and to compile them takes seconds.

    Args:
        batch: Of what is timed.
    """
    shapes = SMALL if small else SHAPES[::3] if quick else SHAPES
    for shape, (k, dtype), last in itertools.product(shapes, _TIMED if quick else _KINDS, (False, True)):
        if not (last and len(shape.size) == 1):
            yield check(shape, k, dtype, last, device)
    for shape, (k, dtype) in itertools.product([] if small else as_timed(quick, batch), _TIMED):
        yield check(shape, k, dtype, True, device)


def as_timed(quick: bool, batch: int) -> list[Shape]:
    """The layers that are timed, at the batch that they are timed at, by which Triton finds their tiles, too."""
    return [
        Shape(f"{c} @ {size}, batch {batch}", batch, c, c, (size, size), (3, 3), padding=1, tuned=True)
        for c, size in (QUICK if quick else LAYERS)
    ]


def check(shape: Shape, kernels: int, dtype: str, channels_last: bool, device: str) -> Check:
    """Compares one."""
    layout = "channels last" if channels_last else "channels first"
    try:
        errors = compare(shape, kernels, dtype, channels_last, device)
    except Exception as error:  # whatever a kernel may run into is a check that failed, and the table goes on
        return Check(shape.name, kernels, dtype, layout, {}, in_a_line(error))
    return Check(shape.name, kernels, dtype, layout, errors)


def compare(shape: Shape, kernels: int, dtype: str, channels_last: bool, device: str) -> dict[str, float]:
    """The relative errors by norm of ``y`` and of every gradient."""
    generator = torch.Generator().manual_seed(0)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator).to(DTYPES[dtype]).to(device)

    tensors = {
        "x": random(shape.batch, shape.c_in, *shape.size),
        "weight": random(kernels, shape.c_out, shape.c_in // shape.groups, *shape.kernel_size),
        "kernel": random(shape.batch, kernels) if kernels > 1 else None,
        "spatial": random(shape.batch, *shape.kernel_size) if max(shape.kernel_size) > 1 else None,
        "input": random(shape.batch, shape.c_in),
        "output": random(shape.batch, shape.c_out),
    }
    if channels_last:
        tensors["x"] = tensors["x"].to(memory_format=_LAST[len(shape.size)])
    options = {n: getattr(shape, n) for n in ("stride", "padding", "dilation", "groups")}
    slope = None
    results = []
    was = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    try:
        for backend, wanted in ((fused, DTYPES[dtype]), (reference, torch.float64)):
            leaves = {n: t.to(wanted).detach().requires_grad_() for n, t in tensors.items() if t is not None}
            # In deterministic mode one tile does for all, and fresh memory is full of NaN.
            torch.use_deterministic_algorithms(backend is fused and not shape.tuned, warn_only=True)
            parts = []
            # The reference keeps a kernel for each sample: all of a large batch at once need not fit.
            size = 16 if backend is reference else shape.batch
            for part in (slice(start, start + size) for start in range(0, shape.batch, size)):
                x, *factors = (leaves[n][part] if n in leaves else None for n in ("x", *dc.Attention._fields))
                with force(backend):
                    y = dc.dynamic_conv(x, leaves["weight"], dc.Attention(*factors), **options)
                slope = random(shape.batch, *y.shape[1:]) if slope is None else slope
                y.backward(slope[part].to(wanted))
                parts.append(y.detach())
            results.append({"y": torch.cat(parts), **{n: t.grad for n, t in leaves.items()}})
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.allow_tf32 = was
    got, want = results
    return {name: ((got[name].double() - t).norm() / t.norm()).item() for name, t in want.items()}

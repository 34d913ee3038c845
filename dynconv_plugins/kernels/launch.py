"""Launching the kernels: their grids, and the buffers that take partial sums."""

from __future__ import annotations

import functools
import math

import torch
import triton
from torch import Tensor

from . import geometry, tiles
from .compiling import interpreted, kernel
from .convolve import convolve
from .correlate import correlate
from .geometry import Geometry

_ALL = (slice(None), slice(None))
_LEAST = 4  # programs for each multiprocessor, so that none waits for memory alone
_BUFFER = 2**26  # values that partial sums of the kernels' gradients may take


def forward(x: Tensor, weight: Tensor, factors: list[Tensor | None], shape: Geometry, y: Tensor) -> None:
    """Writes the dynamic convolution's output to `y`; `factors` in the order of `Attention`."""
    kernel, spatial, channels, filters = factors
    weight = geometry.filters(weight)
    groups = x.shape[1] // weight.shape[-1]
    spatial = None if spatial is None else geometry.taps(spatial)
    _convolve(geometry.maps(x), weight, groups, False, kernel, spatial, channels, filters, shape, geometry.maps(y))


def backward_input(gy: Tensor, weight: Tensor, factors: list[Tensor | None], shape: Geometry, gx: Tensor) -> None:
    """Writes the gradient to the input to `gx`: a convolution of `gy` in which input and output change places."""
    kernel, spatial, channels, filters = factors
    weight = geometry.filters(weight)
    groups = gx.shape[1] // weight.shape[-1]
    spatial = None if spatial is None else geometry.taps(spatial)
    gy, gx = geometry.maps(gy), geometry.maps(gx)
    for phase in geometry.phases(shape, gx.shape[2:], weight.shape[2:5]):
        some, target = weight[(*_ALL, *phase.which)], gx[(*_ALL, *phase.where)]
        if not some.numel():
            target.zero_()
            continue
        s = None if spatial is None else spatial[(slice(None), *phase.which)]
        _convolve(gy, some, groups, True, kernel, s, filters, channels, phase.geometry, target)


def _convolve(x, weight, groups: int, transposed: bool, a, s, c, f, shape: Geometry, y) -> None:
    rows = (weight.shape[1] // groups, weight.stride(1))
    columns = (weight.shape[5], weight.stride(5))
    (m, wm), (r, wr) = (columns, rows) if transposed else (rows, columns)
    batch, positions, count = len(x), math.prod(y.shape[2:]), len(weight)
    if not y.numel():
        return
    shared = tiles.shares_rows(count, positions) and batch * positions < 2**31 - tiles.WIDEST
    lines, samples = (batch * positions, 1) if shared else (positions, batch)

    def grid(tile: dict) -> tuple[int]:
        return (triton.cdiv(m, tile["BM"]) * triton.cdiv(lines, tile["BN"]) * groups * samples,)

    a, c, f = (None if t is None else t.contiguous() for t in (a, c, f))
    function, tile = _launched(batch * positions)
    with _on(x):
        function[grid](
            x, weight, *(x if t is None else t for t in (a, s, c, f)), y,
            batch, groups, m, r, *x.shape[2:], *y.shape[2:], *weight.shape[2:5], *shape.numbers(),
            *x.stride(), *y.stride(), weight.stride(0), rows[0] * rows[1], wm, wr, *weight.stride()[2:5],
            *((0,) * 4 if s is None else s.stride()),
            K=count, HAS_A=a is not None, HAS_S=s is not None, HAS_C=c is not None, HAS_F=f is not None,
            SHARED=shared, **_numbers(x.dtype), **tile,
        )  # fmt: skip


def _launched(total: int) -> tuple:
    """The kernel and its tile, unless the kernel is one that finds its own; `total` is all samples' positions."""
    if interpreted():
        return kernel(convolve), {"BM": 32, "BN": 32, "BR": 32}
    if torch.are_deterministic_algorithms_enabled():
        # What is timed may come out differently tomorrow, and then round differently.
        return kernel(convolve), _config(tiles.CONVOLVE[-1]).all_kwargs()
    return _tuned(total.bit_length() // 2), {}


@functools.cache
def _tuned(load: int):
    """The kernel, its tiles timed once for each shape and load: a few samples may leave most of the device idle.

    Args:
        load: Half the bits of all samples' positions: batches within about a factor of four share a choice.
    """
    configs = [_config(row) for row in tiles.CONVOLVE]
    key = ["groups", "M", "R", "o0", "o1", "o2", "t0", "t1", "t2", "xc", "K", "SHARED", "PRECISION"]
    return triton.autotune(configs, key, prune_configs_by={"early_config_prune": _fitting})(kernel(convolve))


def _config(row: tuple[int, int, int, int, int]) -> triton.Config:
    bm, bn, br, warps, stages = row
    return triton.Config({"BM": bm, "BN": bn, "BR": br}, num_warps=warps, num_stages=stages)


def _fitting(configs: list[triton.Config], arguments: dict, **_) -> list[triton.Config]:
    """Those whose tiles do not consist of padding for the most part."""
    widest, deepest = (max(32, triton.next_power_of_2(arguments[name])) for name in ("M", "R"))
    return [c for c in configs if c.kwargs["BM"] <= widest and c.kwargs["BR"] <= deepest]


def backward_factors(
    x: Tensor,
    gy: Tensor,
    weight: Tensor,
    factors: list[Tensor | None],
    shape: Geometry,
    needs: list[bool],
) -> list[Tensor | None]:
    """The gradients to the weight and to the four factors, each where `needs` says so, else ``None``."""
    w = geometry.filters(weight)
    x5, gy5 = geometry.maps(x), geometry.maps(gy)
    (batch, c_in), c_out = x.shape[:2], gy.shape[1]
    count, *sizes, i = w.shape[0], *w.shape[2:5], w.shape[5]
    groups, taps, positions = c_in // i, math.prod(sizes), math.prod(gy.shape[2:])
    o = c_out // groups
    tile = tiles.correlate_tile(count, o, i, positions, x.dtype == torch.float32, interpreted())
    over_o, over_i = triton.cdiv(o, tile.BO), triton.cdiv(i, tile.BI)
    programs = taps * over_o * over_i * groups
    chunk = _chunk(x, batch, programs, count * c_out * taps * i)
    chunks = triton.cdiv(batch, chunk)
    kernel_, spatial, channels, filters = factors = [None if t is None else t.contiguous() for t in factors]
    buffers = [
        x.new_empty(size, dtype=torch.float32) if need else None
        for need, size in zip(
            needs,
            (
                (chunks, count, c_out, taps, i),
                (programs, batch, count),
                (programs // taps, batch, taps),
                (over_o * taps, batch, c_in),
                (over_i * taps, batch, c_out),
            ),
            strict=True,
        )
    ]
    if x.numel() and gy.numel():
        with _on(x):
            kernel(correlate)[(programs * chunks,)](
                x5, gy5, w, *(x if t is None else t for t in factors), *(x if t is None else t for t in buffers),
                batch, chunk, groups, o, i, *x5.shape[2:], *gy5.shape[2:], *sizes, *shape.numbers(),
                *x5.stride(), *gy5.stride(), w.stride(0), w.stride(1), w.stride(5), *w.stride()[2:5],
                K=count, HAS_A=kernel_ is not None, HAS_S=spatial is not None,
                HAS_C=channels is not None, HAS_F=filters is not None,
                FOR_W=needs[0], FOR_A=needs[1], FOR_S=needs[2], FOR_C=needs[3], FOR_F=needs[4],
                **_numbers(x.dtype), BO=tile.BO, BI=tile.BI, BP=tile.BP,
                num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip
    summed = [None if t is None else t.sum(0) for t in buffers]
    if summed[0] is not None:
        summed[0] = summed[0].reshape(count, c_out, *weight.shape[3:], i).movedim(-1, 2)
    return [
        None if t is None else torch.empty_like(like).copy_(t.reshape(like.shape))
        for t, like in zip(summed, (weight, *factors), strict=True)
    ]


def _chunk(x: Tensor, batch: int, programs: int, values: int) -> int:
    """Samples of a program: all of them, unless there would be too few programs to keep the device busy."""
    wanted = 2 * programs
    if not interpreted():
        wanted = _LEAST * torch.cuda.get_device_properties(x.device).multi_processor_count
    chunks = max(1, min(batch, triton.cdiv(wanted, programs), _BUFFER // values))
    return triton.cdiv(max(batch, 1), chunks)


def _numbers(dtype: torch.dtype) -> dict:
    """Whether 32-bit numbers may be rounded to tf32, and whether bf16 is widened.

    The first goes by torch's setting for convolutions, as the static network's do; that for matrix products is another.
    Triton's interpreter multiplies the bit patterns of bf16 (triton-lang/triton#11584); widened to 32 bits, the
    products are those that tensor cores add up.
    """
    cudnn = torch.backends.cudnn
    # Once the newer name has been set, reading the older one raises.
    allowed = cudnn.conv.fp32_precision == "tf32" if hasattr(cudnn, "conv") else cudnn.allow_tf32
    tf32 = dtype == torch.float32 and allowed
    return {"PRECISION": "tf32" if tf32 else "ieee", "WIDEN": interpreted() and dtype == torch.bfloat16}


def _on(x: Tensor):
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device_of(x)

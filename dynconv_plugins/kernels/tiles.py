"""How the kernels cut up their work. Nothing here changes a result by more than its rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass

# What mixing one value of a tile takes for each of its kernels, in multiply-adds of the tensor cores: a conversion and
# a multiply-add of the ordinary ones, which do about a fifteenth as many in the same time.
MIXING = 16

# Positions that share a mixed tile at most.
WIDEST = 256

# (BM, BN, BR, warps, stages): Triton times them once for every shape, and anew for a batch several times as large. Wide
# tiles reuse a mixed kernel most; the small ones are for few channels or positions, and for 32-bit numbers. The last
# one fits everywhere, and is what deterministic mode takes.
CONVOLVE = (
    (128, 256, 32, 8, 3),
    (64, 256, 64, 8, 3),
    (128, 128, 64, 8, 3),
    (64, 128, 64, 4, 3),
    (64, 64, 32, 4, 4),
    (32, 64, 32, 4, 3),
)


@dataclass(frozen=True)
class CorrelateTile:
    """BO output times BI input channels, BP positions at a time."""

    BO: int
    BI: int
    BP: int
    warps: int
    stages: int


def shares_rows(kernels: int, positions: int) -> bool:
    """Whether the K kernels follow one another in one sum over rows of all samples, rather than be mixed per sample.

    Then nothing is mixed and no row is padding, but there are K products; per sample, a tile of positions is filled up
    and pays for its mixing.
    """
    filled = math.ceil(positions / 64) * 64
    return kernels * positions * 1.25 < filled + MIXING * (kernels + 1) * math.ceil(positions / WIDEST)


def correlate_tile(kernels: int, c_out: int, c_in: int, positions: int, wide: bool, small: bool) -> CorrelateTile:
    """The largest tile whose K sums fit into registers next to a sample's; `wide` for 32-bit numbers.

    `small` is for the interpreter, where a tile should not be larger than what it works on.

    A thread has 255 registers: 8 warps hold K tiles of 64 x 64 in 16 K of them.
    """
    if small:
        return CorrelateTile(32, 32, 32, 4, 1)
    side = 64 if kernels <= 4 else 32
    depth = min(max(32, _power(positions)), 32 if wide else 64)
    low = 32 if kernels <= 16 else 16
    return CorrelateTile(min(64, max(low, _power(c_out))), min(side, max(low, _power(c_in))), depth, 8, 3)


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << max(number - 1, 0).bit_length()

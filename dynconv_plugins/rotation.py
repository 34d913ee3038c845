"""Rotations of a convolution kernel, as fixed matrices on its taps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ROTATIONS = (2, 4, 8)

# The cosines of the eight multiples of 45 degrees, written down: those of 90 must be exact for exact rotations.
_DIAGONAL = math.sqrt(0.5)
_COSINES = (1.0, _DIAGONAL, 0.0, -_DIAGONAL, -1.0, -_DIAGONAL, 0.0, _DIAGONAL)


def rotate(weight: Tensor, rotations: int) -> Tensor:
    """Rotates kernels by the multiples of ``360 / rotations`` degrees, about their middle.

    In two dimensions the plane is the kernel's; in three it is that of the last two axes, and the first one is left
    alone; in one dimension there is the reversal only. Multiples of 90 degrees move the taps and are exact, in the
    direction of ``torch.rot90``; those between interpolate bilinearly, with zeros outside of the kernel.

    Args:
        weight: ``[C_out, C_in, *kernel_size]``.
        rotations: R, one of 2, 4 and 8; the first rotation is by 0 degrees.

    Returns:
        ``[R, C_out, C_in, *kernel_size]``.

    Raises:
        ValueError: For another R, R > 2 in one dimension, or R > 2 of a kernel not square in the plane.
    """
    return turned(weight, rotation_matrices(weight.shape[2:], rotations).to(weight))


def turned(weight: Tensor, matrices: Tensor) -> Tensor:
    """Applies R matrices on the taps of the rotated plane.

    Args:
        weight: ``[C_out, C_in, *kernel_size]``.
        matrices: ``[R, taps, taps]``, see `rotation_matrices`.

    Returns:
        ``[R, C_out, C_in, *kernel_size]``.
    """
    planes = weight.reshape(-1, matrices.shape[-1])
    # One small product after another: on a CPU faster than one large, whose result would have to be reordered.
    return torch.stack([planes @ matrix.T for matrix in matrices]).reshape(-1, *weight.shape)


def rotation_matrices(kernel_size: Sequence[int], rotations: int) -> Tensor:
    """The matrices that `rotate` multiplies the taps of a plane by.

    Args:
        kernel_size: One to three sizes; those of the plane are the last two.
        rotations: R.

    Returns:
        ``[R, taps, taps]`` in float64 on the CPU, for the flattened taps of the plane: rows are the rotated kernel's.

    Raises:
        ValueError: See `rotate`.
    """
    rows, columns = (1, *kernel_size)[-2:]
    if rotations not in ROTATIONS:
        raise ValueError(f"rotations must be 2, 4 or 8, got {rotations}")
    if rotations > 2 and len(kernel_size) == 1:
        raise ValueError(f"in one dimension there are the identity and the reversal only: got rotations={rotations}")
    if rotations > 2 and rows != columns:
        raise ValueError(
            f"rotations={rotations} needs a kernel that is square in its last two axes, got {tuple(kernel_size)}; "
            f"rotations=2 takes any"
        )
    y, x = (torch.arange(n, dtype=torch.float64, device="cpu") - (n - 1) / 2 for n in (rows, columns))
    y, x = (t.flatten() for t in torch.meshgrid(y, x, indexing="ij"))
    matrices = []
    for eighth in range(0, 8, 8 // rotations):
        cosine, sine = _COSINES[eighth], _COSINES[eighth - 2]
        # Where each tap's value comes from; the hat function's overlap with the taps there is bilinear interpolation.
        from_y, from_x = cosine * y + sine * x, cosine * x - sine * y
        matrices.append(_hat(from_y[:, None] - y) * _hat(from_x[:, None] - x))
    return torch.stack(matrices)


def _hat(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)

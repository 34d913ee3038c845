"""Rotations of kernels, against torch.rot90 and torch's bilinear sampler."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dynconv_plugins.rotation import rotate

PLANE = (-2, -1)


def sampled(weight: torch.Tensor, degrees: float) -> torch.Tensor:
    """The kernel turned by torch's own bilinear sampler, zeros outside."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    planes = weight.reshape(1, -1, *weight.shape[-2:])
    theta = torch.tensor([[[c, -s, 0.0], [s, c, 0.0]]], dtype=weight.dtype)
    grid = F.affine_grid(theta, list(planes.shape), align_corners=True)
    return F.grid_sample(planes, grid, "bilinear", "zeros", align_corners=True).reshape(weight.shape)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_quarter_turns_are_exact(size):
    """To the bit, in the direction of torch.rot90, and in every dtype."""
    w = torch.randn(3, 2, size, size)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        v = w.to(dtype)
        assert torch.equal(rotate(v, 4), torch.stack([torch.rot90(v, r, PLANE) for r in range(4)]))
        assert torch.equal(rotate(v, 2), torch.stack([v, v.flip(PLANE)]))
        assert torch.equal(rotate(v, 8)[::2], rotate(v, 4))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_eighth_turns_are_bilinear(size):
    w = torch.randn(3, 2, size, size, dtype=torch.float64)
    want = torch.stack([sampled(w, 45.0 * r) for r in range(8)])
    torch.testing.assert_close(rotate(w, 8), want, rtol=0, atol=1e-12)


def test_other_planes():
    one, uneven, three = torch.randn(3, 2, 5), torch.randn(3, 2, 3, 5), torch.randn(3, 2, 4, 3, 3)
    assert torch.equal(rotate(one, 2), torch.stack([one, one.flip(-1)]))
    assert torch.equal(rotate(uneven, 2), torch.stack([uneven, uneven.flip(PLANE)]))
    assert torch.equal(rotate(three, 4), torch.stack([torch.rot90(three, r, PLANE) for r in range(4)]))


@pytest.mark.parametrize(
    ("shape", "rotations", "named"),
    [((3, 3), 6, "2, 4 or 8, got 6"), ((3,), 4, "one dimension"), ((3, 5), 4, "square"), ((3, 3, 1), 8, "square")],
)
def test_rotations_a_kernel_does_not_have(shape, rotations, named):
    with pytest.raises(ValueError, match=named):
        rotate(torch.zeros(1, 1, *shape), rotations)

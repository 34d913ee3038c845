"""What is ODConv's own; what every operator must do is in battery.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import dynconv_plugins as dc

CLASSES = {1: dc.ODConv1d, 2: dc.ODConv2d, 3: dc.ODConv3d}
DIMS = pytest.mark.parametrize("dims", [1, 2, 3])
KERNELS = pytest.mark.parametrize("kernels", [1, 4])


def make(dims: int = 2, kernels: int = 4, **options):
    torch.manual_seed(0)
    options = {"kernel_size": 3, "padding": 1, "num_kernels": kernels, **options}
    return CLASSES[dims](8, 6, **options).double()


def data(dims: int = 2, batch: int = 3, channels: int = 8, size: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *(size,) * dims, dtype=torch.float64, generator=generator)


@DIMS
@KERNELS
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("depthwise", [False, True])
def test_parameters(dims, kernels, size, depthwise):
    """The published formula for what a convolution gains."""
    c_in, c_out, groups = (48, 48, 48) if depthwise else (48, 20, 1)
    op = CLASSES[dims](c_in, c_out, size, groups=groups, num_kernels=kernels, reduction=0.5)
    h, taps = 24, size**dims
    added = c_in * h + 2 * h + (h * c_in + c_in)
    added += 0 if depthwise else h * c_out + c_out
    added += h * taps + taps if taps > 1 else 0
    added += h * kernels + kernels if kernels > 1 else 0
    weights = kernels * c_out * c_in // groups * taps + c_out
    assert sum(p.numel() for p in op.parameters()) == weights + added


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("backend", ["mixture", "gemm", "grouped", "reference"])
def test_trains_on_one_sample_and_one_position(batch, backend):
    op = make(kernel_size=3, padding=0)
    x = data(batch=batch, size=3).requires_grad_()
    with dc.backend(backend):
        y = op(x)
        y.square().sum().backward()
    assert y.shape == (batch, 6, 1, 1)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in op.parameters())
    assert x.grad.isfinite().all()


def test_recorder():
    net = nn.Sequential(make(), nn.ReLU())
    with dc.record_attention(net) as seen:
        net(data())
        net(data())
    assert list(seen) == ["0"] and len(seen["0"]) == 2
    attention = seen["0"][0]
    assert attention.kernel.shape == (3, 4) and attention.spatial.shape == (3, 3, 3)
    torch.testing.assert_close(attention.kernel.sum(1), torch.ones(3))
    net(data())
    assert len(seen["0"]) == 2, "the recorder went on after its block"


BAD = [
    ({"num_kernels": 0}, "num_kernels"),
    ({"temperature": 0.0}, "temperature"),
    ({"reduction": 0.0}, "reduction"),
]


@pytest.mark.parametrize(("options", "named"), BAD, ids=str)
def test_bad_arguments(options, named):
    with pytest.raises(ValueError, match=named):
        make(**options)


def test_bad_inputs():
    with pytest.raises(ValueError, match="smaller than the kernel"):
        make(padding=0)(data(size=2))
    with pytest.raises((ValueError, RuntimeError)):
        make()(data(channels=7))
    with pytest.raises(dc.UnknownName, match="did you mean grouped"), dc.backend("groupd"):
        pass

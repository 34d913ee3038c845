"""Geometry and shapes: what is refused, in one line, what is taken, and what may be changed later."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from battery import build, data

import dynconv_plugins as dc
from dynconv_plugins.backends import BACKENDS

NAMES = pytest.mark.parametrize("name", dc.registry.names())


@NAMES
@pytest.mark.parametrize("shape", [(1, 4, 9, 9), (4, 9, 9), (2, 8, 9), (1, 1, 8, 9, 9)], ids=str)
def test_inputs_that_do_not_fit(name, shape):
    with pytest.raises(ValueError, match=r"expected an input \[B, 8, H, W\].*got \[") as error:
        build(name)(torch.randn(shape, dtype=torch.float64))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("backend", [*BACKENDS, None])
@pytest.mark.parametrize("options", [{"stride": 0}, {"padding": -1}, {"dilation": (1, 0)}], ids=str)
def test_geometry_is_refused_whatever_the_backend(backend, options, monkeypatch):
    monkeypatch.setenv("DYNCONV_BACKEND", backend or "")
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be at least"):
        dc.dynamic_conv(torch.randn(2, 3, 5, 5), torch.randn(1, 4, 3, 3, 3), dc.Attention(), **options)


@pytest.mark.parametrize("backend", [*BACKENDS, None])
@pytest.mark.parametrize("shape", [(0, 4, 3, 3, 3), (2, 0, 3, 3, 3), (2, 4, 0, 3, 3), (2, 4, 3, 0, 3)], ids=str)
def test_layers_without_kernels_channels_or_taps_are_refused(backend, shape, monkeypatch):
    """Of which the compiled backend would divide by zero, and end the process."""
    monkeypatch.setenv("DYNCONV_BACKEND", backend or "")
    with pytest.raises(ValueError, match="a layer needs kernels, channels and taps") as error:
        dc.dynamic_conv(torch.randn(2, shape[2], 5, 5), torch.empty(shape), dc.Attention())
    assert "\n" not in str(error.value)


def test_integers_of_numpy():
    op = dc.ODConv2d(8, 6, np.int64(3), stride=(np.int64(2), 1), padding=np.int32(1))
    assert (op.kernel_size, op.stride, op.padding) == ((3, 3), (2, 1), (1, 1))
    assert all(type(n) is int for n in op.kernel_size + op.stride + op.padding)


@NAMES
def test_changed_later(name):
    """As it may be of torch's convolutions: mmsegmentation and timm dilate backbones so."""
    options = {"stride": 2, "padding": 2, "dilation": 2, "padding_mode": "circular"}
    op, want = build(name).eval(), build(name, **options).eval()
    op.stride, op.padding, op.dilation, op.padding_mode = (2, 2), (2, 2), (2, 2), "circular"
    torch.testing.assert_close(op(data()), want(data()))


@pytest.mark.parametrize("shape", [(1,), (3,), (4, 1)])
def test_bias_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"the bias must be \[4\], got"):
        dc.dynamic_conv(torch.randn(2, 3, 5, 5), torch.randn(1, 4, 3, 3, 3), dc.Attention(), bias=torch.zeros(shape))


def test_bias_of_another_type():
    x, weight = torch.randn(2, 3, 5, 5).bfloat16(), torch.randn(1, 4, 3, 3, 3).bfloat16()
    assert dc.dynamic_conv(x, weight, dc.Attention(), bias=torch.zeros(4)).dtype == torch.bfloat16


@NAMES
def test_from_the_meta_device(name):
    """What is neither drawn nor loaded has its first value again; what is drawn is drawn by reset_parameters."""
    options = {"mask": "task"} if name == "hard" else {}
    want = dc.registry.build(name, 2, 8, 6, 3, **options)
    op = dc.registry.build(name, 2, 8, 6, 3, device="meta", **options).to_empty(device="cpu")
    for tensor in op.parameters():
        torch.nn.init.constant_(tensor, torch.nan)
    for module in op.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for key, value in dict(op.named_buffers()).items():
        assert torch.equal(value, want.get_buffer(key)), key
    x = torch.randn(2, 8, 5, 5)
    assert all(p.isfinite().all() for p in op.parameters()) and op(x).isfinite().all()


def test_hard_is_reset_to_on():
    op = dc.Hard2d(8, 6, 3, mask="task")
    op.zeta.data.fill_(-1)
    op.reset_parameters()
    assert (op.zeta > 0).all()

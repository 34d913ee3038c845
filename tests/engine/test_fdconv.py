"""What fdconv promises beyond the battery: real bands, of equal size, disjoint, ordered, that sum to the kernel."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import dynconv_plugins as dc
from dynconv_plugins.operators.fdconv import frequency_bands


def spectra(op) -> torch.Tensor:
    """The spectrum of each of the K kernels, of the whole map by torch's complex transform."""
    return torch.stack([torch.fft.fft2(k.permute(1, 2, 0, 3).reshape(-1, k.shape[0] * k.shape[3])) for k in op.kernels])


@pytest.mark.parametrize("count", [1, 4, 64])
def test_bands_sum_to_the_kernel_and_share_no_frequency(count):
    op = dc.FDConv2d(8, 6, 3, num_kernels=count).double()
    assert op.kernels.shape == (count, 6, 8, 3, 3) and op.weight.shape == (6, 8, 3, 3)
    torch.testing.assert_close(op.kernels.sum(0), op.weight)
    assert ((spectra(op).abs() > 1e-9).sum(0) == 1).all()


def test_bands_are_ordered_and_of_equal_size():
    op = dc.FDConv2d(32, 32, 3).double()
    there = spectra(op).abs() > 1e-9
    u = torch.fft.fftfreq(96)
    lengths = (u[:, None] ** 2 + u**2).sqrt()
    ranges = [lengths[band].aminmax() for band in there]
    assert all(low.max <= high.min for low, high in zip(ranges, ranges[1:], strict=False))
    # Up to the eight frequencies of one length at each edge.
    assert all(abs(int(band.sum()) - 96 * 96 // 4) <= 16 for band in there)


def test_a_map_smaller_than_the_number_of_bands():
    op = dc.FDConv1d(1, 2, 1, num_kernels=5).double()
    torch.testing.assert_close(op.kernels.sum(0), op.weight)
    assert frequency_bands(1, 2, 5).tolist() == [[0, 2]]


def test_materialised_from_the_meta_device():
    op = dc.FDConv2d(8, 6, 3)
    twin = dc.FDConv2d(8, 6, 3, device="meta").to_empty(device="cpu")
    twin.load_state_dict(op.state_dict())
    assert torch.equal(twin.kernels, op.kernels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_transforms_in_single(dtype):
    op = dc.FDConv2d(8, 6, 3).to(dtype)
    assert op.kernels.dtype == dtype
    torch.testing.assert_close(op.kernels, op.float().kernels.to(dtype))


@pytest.mark.parametrize("converted", [True, False])
def test_starts_with_all_weights_one(converted):
    op = dc.dynamize(torch.nn.Conv2d(8, 6, 3), "fdconv") if converted else dc.FDConv2d(8, 6, 3)
    assert torch.equal(op.attend(torch.randn(5, 8, 4, 4)).kernel, torch.ones(5, 4))


@pytest.mark.parametrize("count", [0, 257])
def test_number_of_bands(count):
    with pytest.raises(ValueError, match="num_kernels must be at least 1 and at most 256"):
        dc.FDConv2d(8, 6, 3, num_kernels=count)


@pytest.mark.parametrize("decay", [0.9, 0.9995, 0.9999])
def test_an_average_of_the_buffers_keeps_the_bands(decay):
    """Of whole numbers some of these would come out one lower: 3 as 2.9999998."""
    op = dc.FDConv2d(16, 16, 3, num_kernels=16).eval()
    nn.init.normal_(op.attention.logits.weight)
    average = AveragedModel(op, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    for _ in range(50):
        average.update_parameters(op)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(average.module(x), op(x))
    plain = AveragedModel(op, use_buffers=True)
    for _ in range(50):
        plain.update_parameters(op)
    torch.testing.assert_close(plain.module(x), op(x))

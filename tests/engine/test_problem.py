"""What is known of a call before it runs: that its tensors lie together, and which of its products count."""

from __future__ import annotations

import pytest
import torch
from problems import CASES, problem

import dynconv_plugins as dc
from dynconv_plugins.backends.costs import reached


@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_with_padding_are_counted_out(case):
    p = problem(case)
    part = 1.0
    for k, s, pad, d, n, o in zip(p.kernel_size, p.stride, p.padding, p.dilation, p.size, p.out_size, strict=True):
        part *= sum(0 <= i * s + j * d - pad < n for i in range(o) for j in range(k)) / (o * k)
    assert reached(p) == pytest.approx(part)


def test_what_lies_on_several_devices_is_named():
    x, weight = torch.randn(2, 4, 5, 5), torch.randn(3, 6, 4, 3, 3)
    for attention, bias, said in (
        (dc.Attention(kernel=torch.rand(2, 3, device="meta")), None, "the kernel attention is on meta, x on cpu"),
        (dc.Attention(kernel=torch.rand(2, 3)), torch.rand(6, device="meta"), "the bias is on meta, x on cpu"),
    ):
        with pytest.raises(ValueError, match=said):
            dc.dynamic_conv(x, weight, attention, bias=bias)

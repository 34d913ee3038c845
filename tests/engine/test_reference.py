"""The reference against the equation written out with loops."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from problems import Case, geometry, inputs, problem

import dynconv_plugins as dc
from dynconv_plugins.problem import ntuple


def equation(case: Case) -> torch.Tensor:
    """The design's equation, one multiplication at a time, without calling any convolution."""
    x, weight, attention, bias = (t.detach() if torch.is_tensor(t) else t for t in inputs(case))
    dims = len(case.size)
    stride, padding, dilation = (ntuple(getattr(case, name), dims, name) for name in ("stride", "padding", "dilation"))
    out = problem(case).out_size
    y = torch.zeros(case.batch, case.c_out, *out, dtype=x.dtype)
    c_in, c_out = case.c_in // case.groups, case.c_out // case.groups
    for b, o in itertools.product(range(case.batch), range(case.c_out)):
        for position in itertools.product(*(range(n) for n in out)):
            totals = [0.0] * case.kernels
            for i, tap in itertools.product(range(c_in), itertools.product(*(range(n) for n in case.kernel_size))):
                at = [p * s - q + t * d for p, s, q, t, d in zip(position, stride, padding, tap, dilation, strict=True)]
                if any(a < 0 or a >= n for a, n in zip(at, case.size, strict=True)):
                    continue
                channel = o // c_out * c_in + i
                value = x[(b, channel, *at)]
                value = value if attention.input is None else value * attention.input[b, channel]
                value = value if attention.spatial is None else value * attention.spatial[(b, *tap)]
                for k in range(case.kernels):
                    mixed = 1.0
                    if attention.kernel is not None:
                        mixed = attention.kernel[(b, k, *position)] if case.per_position else attention.kernel[b, k]
                    totals[k] = totals[k] + value * mixed * weight[(k, o, i, *tap)]
            total = max(totals) if case.combine == "max" else sum(totals)
            total = total if attention.output is None else total * attention.output[b, o]
            y[(b, o, *position)] = total + (0.0 if bias is None else bias[o])
    return y


SMALL = [
    Case("1d-K4", (5,), (4,), 4, batch=2, c_in=4, stride=2, padding=2),
    Case("2d-K2-groups", (4, 3), (3, 2), 2, batch=2, c_in=4, groups=2, padding=1, dilation=(1, 2)),
    Case("2d-per-position", (3, 3), (3, 3), 2, batch=2, c_in=2, c_out=2, padding=1, per_position=True),
    Case("3d-K2", (3, 3, 2), (2, 3, 1), 2, batch=2, c_in=2, c_out=2, padding=(0, 1, 0)),
    Case("2d-max-K3-groups", (4, 3), (3, 2), 3, batch=2, c_in=4, groups=2, padding=1, combine="max"),
    Case(
        "2d-max-per-position", (3, 3), (3, 3), 2, batch=2, c_in=2, c_out=2, padding=1, per_position=True, combine="max"
    ),
]


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_reference_is_the_equation(case):
    x, weight, attention, bias = inputs(case)
    with dc.backend("reference"):
        y = dc.dynamic_conv(x, weight, attention, bias=bias, **geometry(case))
    torch.testing.assert_close(y.detach(), equation(case), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_an_empty_batch(case):
    """Every argument has its gradient, zero."""
    x, weight, attention, bias = inputs(replace(case, batch=0))
    with dc.backend("reference"):
        y = dc.dynamic_conv(x, weight, attention, bias=bias, **geometry(case))
    assert y.shape == (0, case.c_out, *problem(case).out_size)
    leaves = [x, weight, *(t for t in attention if t is not None)]
    assert not any(grad.any() for grad in torch.autograd.grad(y.sum(), leaves))

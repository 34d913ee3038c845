"""The fused kernels: on a GPU where there is one, everywhere else in Triton's interpreter."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from fused_cases import DEVICE, K4, SHARED, interpreted_without_a_gpu  # noqa: F401 - the last is a fixture
from problems import ALL, Case, geometry, inputs
from test_backends import LAYOUTS, assert_close

import dynconv_plugins as dc
from dynconv_plugins.backends import force, fused, reference

# Channels that fill no tile, one case with several tiles of them, and maps of both kinds: those whose positions are
# mixed per sample, and small ones that share their rows (tiles.shares_rows).
CASES = [
    Case("1d-K4-stride2", (40,), (4,), kernels=4, batch=2, c_in=17, c_out=18, stride=2, padding=1),
    Case("1d-shared-dilation3", (9,), (3,), batch=3, c_in=17, c_out=18, dilation=3, padding=2),
    Case("1d-stride2-dilation2", (13,), (3,), batch=2, c_in=16, c_out=17, stride=2, dilation=2, padding=3),
    Case("1d-stride4-dilation6", (23,), (3,), batch=2, c_in=17, c_out=16, stride=4, dilation=6, padding=5),
    Case("2d-K1", (7, 5), (3, 2), batch=2, c_in=18, c_out=17, padding=1, factors=ALL - {"kernel"}),
    Case("2d-K4-uneven-stride", (9, 9), (2, 3), kernels=4, batch=2, c_in=17, c_out=18, stride=(2, 3), padding=(1, 2)),
    Case("2d-K8-groups2-dilation", (6, 7), (2, 2), kernels=8, batch=2, c_in=36, c_out=34, groups=2, dilation=2),
    Case("2d-K4-shared-wide-padding", (3, 3), (2, 2), kernels=4, batch=3, c_in=17, c_out=18, stride=2, padding=3),
    Case("2d-1x1-K4-stride2", (9, 9), (1, 1), 4, batch=2, c_in=35, c_out=34, stride=2, factors=ALL - {"spatial"}),
    Case("2d-no-attention", (6, 6), (2, 2), batch=2, c_in=16, c_out=16, padding=1, factors=frozenset()),
    Case("2d-K4-summed", (6, 6), (2, 2), 4, batch=2, c_in=16, c_out=17, padding=1, factors=frozenset({"spatial"})),
    Case("2d-K4-kernel-only", (6, 6), (2, 2), 4, batch=2, c_in=17, c_out=16, factors=frozenset({"kernel"})),
    Case("2d-input-only", (6, 6), (2, 2), batch=2, c_in=17, c_out=16, factors=frozenset({"input"}), bias=False),
    Case("2d-output-only-one-pixel", (1, 1), (3, 3), c_in=16, c_out=17, padding=1, factors=frozenset({"output"})),
    Case("3d-K2", (3, 4, 5), (2, 1, 2), kernels=2, batch=2, c_in=17, c_out=16, stride=(1, 2, 1), padding=(1, 0, 1)),
]


def run(case: Case, dtype: torch.dtype = torch.float32, backend=fused, prepare=lambda x: x, seed: int = 0):
    """Output and every gradient."""
    device = DEVICE if backend is fused else "cpu"
    tensors = inputs(case, dtype, seed)
    x, weight, bias = (None if t is None else t.detach().to(device) for t in (tensors[0], tensors[1], tensors[3]))
    attention = dc.Attention(*(None if t is None else t.detach().to(device) for t in tensors[2]))
    leaves = {"x": prepare(x), "weight": weight, "bias": bias, **attention._asdict()}
    leaves = {name: t.requires_grad_() for name, t in leaves.items() if t is not None}
    factors = {name: leaves.get(name) for name in attention._fields}
    with force(backend):
        y = dc.dynamic_conv(leaves["x"], weight, dc.Attention(**factors), bias=bias, **geometry(case))
    slope = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().reshape(y.shape).to(y)
    grads = torch.autograd.grad(y, list(leaves.values()), slope)
    return {name: t.detach().cpu() for name, t in zip(("y", *leaves), (y, *grads), strict=True)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32(case):
    assert_close(run(case), run(case, torch.float64, reference), 1e-5)


@pytest.mark.parametrize("case", [K4, SHARED], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision(dtype, case):
    """Against the reference of the rounded inputs: what is left is the rounding of tiles and results."""
    rounded = [None if t is None else t.to(dtype).double() for t in (*inputs(case)[:2], *inputs(case)[2])]
    got = run(case, dtype)
    x, weight, *factors = (None if t is None else t.detach().requires_grad_() for t in rounded)
    with force(reference):
        y = dc.dynamic_conv(x, weight, dc.Attention(*factors), **geometry(case))
    slope = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().reshape(y.shape).to(dtype).double()
    wanted = (y.detach(), *torch.autograd.grad(y, [x, weight, *factors], slope))
    for name, want in zip(("y", "x", "weight", *dc.Attention._fields), wanted, strict=True):
        assert got[name].dtype == dtype
        assert ((got[name].double() - want).norm() / want.norm()).item() < 8 * torch.finfo(dtype).eps, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    prepare = LAYOUTS[layout]
    case = replace(K4, kernels=2, batch=3)
    assert_close(run(case, prepare=prepare), run(case, torch.float64, reference, prepare), 1e-5)


def test_samples_that_are_spread_too_far_for_32_bits(monkeypatch):
    """As with the batch inside the channels: what is read is copied, and what is written must not be."""
    monkeypatch.setattr("dynconv_plugins.kernels.geometry._LARGEST", 18 * 8 * 7)  # values of one sample's output
    case = replace(K4, batch=3)
    got = run(case, prepare=lambda x: x.transpose(0, 1).contiguous().transpose(0, 1))
    assert_close(got, run(case, torch.float64, reference), 1e-5)


def test_memory_format_is_kept():
    x, weight, attention, _ = (t.to(DEVICE) if isinstance(t, torch.Tensor) else t for t in inputs(K4, torch.float32))
    attention = dc.Attention(*(t.detach().to(DEVICE) for t in attention))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        leaf = x.detach().to(memory_format=memory_format).requires_grad_()
        arguments = (leaf, weight, *attention, [1, 1], [1, 1], [1, 1])
        y = torch.ops.dynconv.fused(*arguments)
        assert y.is_contiguous(memory_format=memory_format)
        (grad,) = torch.autograd.grad(y.sum(), leaf)
        assert grad.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("case", [K4, SHARED], ids=str)
def test_same_result_twice_and_nothing_read_from_fresh_memory(case):
    """Deterministic mode fills fresh memory with NaN: reading an element that was not written shows."""
    first = run(case)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(4).isnan().all()
        second = run(case)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("case", [K4, SHARED], ids=str)
def test_batch_mates_do_not_matter(case):
    x, weight, attention, _ = inputs(case, torch.float32)
    tensors = [t.detach().to(DEVICE) for t in (x, *attention)]
    mates = [torch.cat([t[:1], torch.full_like(t[1:], torch.nan)]) for t in tensors]
    results = []
    with torch.no_grad(), force(fused):
        for first, *factors in (tensors, mates):
            y = dc.dynamic_conv(first, weight.to(DEVICE), dc.Attention(*factors), **geometry(case))
            results.append(y[0])
    assert torch.equal(*results)


@pytest.mark.parametrize("gate", dc.Attention._fields)
def test_gate_of_zero_has_its_gradient(gate):
    """No factor's gradient is computed by dividing by the factor."""
    x, weight, attention, _ = inputs(replace(K4, kernels=2), torch.float32)
    grads = []
    for backend, dtype, device in ((fused, torch.float32, DEVICE), (reference, torch.float64, "cpu")):
        factors = {n: t.detach().to(device, dtype) for n, t in attention._asdict().items()}
        zero = factors[gate] = torch.zeros_like(factors[gate]).requires_grad_()
        with force(backend):
            y = dc.dynamic_conv(x.detach().to(device, dtype), weight.to(device, dtype), dc.Attention(**factors))
        grads.append(torch.autograd.grad(y.sum(), zero)[0].cpu().double())
    assert grads[1].abs().max() > 0
    assert ((grads[0] - grads[1]).abs().max() / grads[1].abs().max()).item() < 1e-5


@functools.cache
def all_gradients() -> dict[str, torch.Tensor]:
    return run(K4)


@pytest.mark.parametrize("free", ["x", "weight", "kernel", "spatial", "input", "output"])
def test_one_gradient_alone(free):
    """The same as among all: a kernel that computes only what is asked for leaves nothing out."""
    everything = all_gradients()
    x, weight, attention, _ = inputs(K4, torch.float32)
    leaves = {"x": x, "weight": weight, **attention._asdict()}
    leaves = {name: t.detach().to(DEVICE).requires_grad_(name == free) for name, t in leaves.items()}
    with force(fused):
        y = dc.dynamic_conv(
            leaves["x"], leaves["weight"], dc.Attention(*(leaves[n] for n in attention._fields)), **geometry(K4)
        )
    slope = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().reshape(y.shape).to(y)
    (grad,) = torch.autograd.grad(y, leaves[free], slope)
    assert_close({free: grad.cpu()}, {free: everything[free]}, 1e-6)


def test_a_batch_of_nothing():
    """As a static convolution: an empty output, and gradients of zero."""
    x, weight, attention, _ = inputs(replace(K4, batch=0), torch.float32)
    leaves = [t.detach().to(DEVICE).requires_grad_() for t in (x, weight, *attention)]
    with force(fused):
        y = dc.dynamic_conv(leaves[0], leaves[1], dc.Attention(*leaves[2:]), padding=1)
    grads = torch.autograd.grad(y.sum(), leaves)
    assert y.shape == (0, 18, 8, 7)
    assert [g.shape for g in grads] == [t.shape for t in leaves] and not grads[1].any()


def test_autocast_gives_one_dtype_and_gradients_of_the_parameters():
    x, weight, attention, _ = inputs(replace(K4, kernels=2), torch.float32)
    leaves = [t.detach().to(DEVICE).requires_grad_() for t in (x, weight, *attention)]
    with force(fused), torch.autocast(DEVICE, torch.bfloat16):
        y = dc.dynamic_conv(leaves[0], leaves[1], dc.Attention(*leaves[2:]), padding=1)
    assert y.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(y.float().sum(), leaves))

"""The compiled backend where it has branches of its own: blocks, chunks, parts and remainders."""

from __future__ import annotations

import pytest
import torch
from problems import ALL, Case, geometry, inputs, problem
from test_backends import assert_close, run

import dynconv_plugins as dc
from dynconv_plugins.backends import choose_backend, name_of
from dynconv_plugins.backends.native import supports
from dynconv_plugins.native.calls import connections
from dynconv_plugins.native.depthwise import _neighbours, native_depthwise
from dynconv_plugins.native.library import unavailable
from dynconv_plugins.native.op import native
from dynconv_plugins.native.recent import recent
from dynconv_plugins.problem import Problem

pytestmark = pytest.mark.skipif(
    unavailable(torch.float32) is not None, reason=f"needs a C compiler: {unavailable(torch.float32)}"
)

# Blocks of 64 (32 in float64) output channels, chunks of 64 inputs, parts of 256 positions; maps under 48 in another
# order. Tiles of 6, 4, 2 and 1 rows.
CASES = [
    Case("blocks-and-chunks", (7, 7), (3, 3), 3, 2, 100, 150, padding=1),
    Case("whole-blocks", (5, 5), (3, 3), 4, 2, 64, 128, padding=1),
    Case("parts", (21, 20), (3, 3), 2, 2, 20, 36, padding=1),
    Case("parts-stride", (37, 35), (3, 3), 2, 2, 12, 20, stride=2, padding=1),
    Case("parts-1x1-stride", (34, 33), (1, 1), 2, 2, 12, 20, stride=2, factors=ALL - {"spatial"}),
    Case("groups", (9, 9), (3, 3), 2, 2, 144, 96, padding=1, groups=2),
    Case("narrow", (9, 9), (3, 3), 2, 2, 5, 3, padding=2, dilation=2),
    Case("tiny-map", (2, 2), (3, 3), 4, 5, 70, 70, padding=1),
    Case("taps-that-reach-nothing", (2, 2), (5, 5), 2, 3, 8, 8, padding=2),
    Case("series", (301,), (7,), 4, 2, 33, 65, padding=3),
    Case("volume", (7, 8, 7), (3, 3, 3), 2, 2, 9, 17, padding=1, stride=(1, 2, 1)),
    Case("depthwise", (12, 11), (3, 3), 2, 3, 150, 150, padding=1, groups=150),
    Case("depthwise-stride", (9, 9), (5, 5), 1, 3, 64, 64, stride=2, padding=2, groups=64, factors=ALL - {"output"}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 2e-5)], ids=["64", "32"])
def test_equals_the_reference(case, dtype, rtol):
    assert_close(run("native", case, dtype), run("reference", case, torch.float64), rtol)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_flops_are_those_of_the_static_convolution_and_of_making_kernels(case):
    """As `torch.utils.flop_counter` counts the convolution itself; twice a multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    x, weight, attention, _ = inputs(case)
    with FlopCounterMode(display=False) as forward, dc.backend("native"):
        y = dc.dynamic_conv(x, weight, attention, **geometry(case))
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    static = 2 * y[:, 0].numel() * weight[0].numel()
    counts = forward.get_flop_counts()["Global"], backward.get_flop_counts()["Global"]
    forth, back = (sum(n for op, n in c.items() if "native" in str(op)) for c in counts)
    assert back == 2 * static
    if case.groups == case.c_in == case.c_out:
        assert forth == static
    else:
        per_kernel = len(weight) * weight[0].numel() * (1 + bool(case.factors & {"spatial", "input"}))
        making = per_kernel + weight[0].numel() + y[0, 0].numel() * case.c_in
        assert forth == static + 2 * case.batch * making


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_any_number_of_threads(case):
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(run("native", case, torch.float64))
    finally:
        torch.set_num_threads(threads)
    assert_close(*results, 1e-12)


@pytest.mark.parametrize("order", ["channels-last", "transposed", "expanded"])
def test_weights_in_any_order(order):
    case = CASES[0]
    x, weight, attention, bias = inputs(case)
    prepared = {
        "channels-last": lambda w: w.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, w.shape[:2]),
        "transposed": lambda w: w.transpose(1, 2).contiguous().transpose(1, 2),
        "expanded": lambda w: w[:1].expand_as(w),
    }[order](weight.detach()).requires_grad_()
    results = []
    for name in ("native", "reference"):
        with dc.backend(name):
            y = dc.dynamic_conv(x, prepared, attention, bias=bias, **geometry(case))
        results.append({"y": y.detach(), "weight": torch.autograd.grad(y.sum(), prepared)[0]})
    assert_close(*results, 1e-10)


ORDERS = {
    "one-input": ((2, 1, 4, 3, 3), (0, 2, 1, 3, 4)),
    "one-input-flat": ((2, 1, 4, 1, 3), (0, 2, 1, 3, 4)),
    "one-filter": ((2, 4, 3, 3, 1), (0, 4, 1, 2, 3)),
    "one-filter-one-input": ((2, 3, 3, 1, 1), (0, 3, 4, 1, 2)),
}


@pytest.mark.parametrize("order", ORDERS)
def test_weights_of_a_single_channel_in_any_order(order):
    """The stride of a dimension of one says nothing."""
    shape, axes = ORDERS[order]
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).permute(axes)
    compare(weight.detach().requires_grad_())


def test_filters_that_share_memory():
    compare(torch.randn(2, 1, 20, 3, 3, dtype=torch.float64).expand(2, 70, 20, 3, 3).requires_grad_())


def compare(weight: torch.Tensor) -> None:
    """Output and gradients for `weight` are the reference's, whatever fresh memory holds."""
    x = torch.randn(3, weight.shape[2], 4, 5, dtype=torch.float64).requires_grad_()
    attention = dc.Attention(kernel=torch.rand(3, len(weight), dtype=torch.float64))
    results = []
    torch.use_deterministic_algorithms(True)  # fills it with NaN
    try:
        for name in ("native", "reference"):
            with dc.backend(name):
                y = dc.dynamic_conv(x, weight, attention, padding=1)
            seed = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().reshape(y.shape)
            grads = torch.autograd.grad(y, (x, weight), seed)
            results.append({"y": y.detach(), **dict(zip(("x", "weight"), grads, strict=True))})
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(*results, 1e-10)


@pytest.mark.parametrize("order", ["inputs-innermost", "taps-apart", "plain"])
def test_the_gradient_lies_in_memory_as_the_compiler_is_told(order):
    shape, axes = {
        "inputs-innermost": ((2, 6, 3, 3, 8), (0, 1, 4, 2, 3)),
        "taps-apart": ((2, 8, 3, 6, 3), (0, 3, 1, 2, 4)),
        "plain": ((2, 6, 8, 3, 3), (0, 1, 2, 3, 4)),
    }[order]
    weight = torch.randn(shape).permute(axes)
    x, grad = torch.randn(2, 8, 4, 4), torch.randn(2, 6, 4, 4)
    arguments = (grad, x, weight, torch.rand(2, 2), None, None, None, [1, 1], [1, 1], [1, 1], 1, True, True)
    _, real, *_ = torch.ops.dynconv.native_backward.default(*arguments)
    meta = (t.to("meta") if isinstance(t, torch.Tensor) else t for t in arguments)
    _, fake, *_ = torch.ops.dynconv.native_backward.default(*meta)
    assert real.stride() == fake.stride()


def test_an_empty_batch():
    case = CASES[1]
    x, weight, attention, bias = inputs(case)
    with dc.backend("native"):
        y = dc.dynamic_conv(x[:0], weight, dc.Attention(*(t[:0] for t in attention)), bias=bias, **geometry(case))
    assert y.shape == (0, 128, 5, 5)
    assert not torch.autograd.grad(y.sum(), weight)[0].any()


SECOND = [
    Case("dense", (4, 3), (2, 3), 2, 2, 4, 2, stride=(1, 2), padding=1, groups=2),
    Case("pointwise", (3, 2), (1, 1), 2, 2, 3, 2, factors=ALL - {"spatial"}),
    Case("depthwise", (4, 3), (3, 3), 1, 2, 3, 3, padding=1, groups=3, factors=ALL - {"kernel"}),
]


def second(name: str, case: Case) -> dict[str, torch.Tensor]:
    """Gradients of a gradient penalty; the factors depend on x, as attention does."""
    x, weight, attention, bias = inputs(case)
    scale = 1 + x.square().mean()
    with dc.backend(name):
        attended = dc.Attention(*(None if t is None else t * scale for t in attention))
        y = dc.dynamic_conv(x, weight, attended, bias=bias, **geometry(case))
        leaves = {"x": x, "weight": weight, **attention._asdict()}
        leaves = {n: t for n, t in leaves.items() if t is not None}
        first = torch.autograd.grad(y.sin().sum(), list(leaves.values()), create_graph=True)
        found = torch.autograd.grad(sum(g.square().sum() for g in first), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("name", ["native", "mixture"])
@pytest.mark.parametrize("case", SECOND, ids=str)
def test_second_derivatives(case, name):
    assert_close(second(name, case), second("grouped", case), 1e-10)


@pytest.mark.parametrize("case", SECOND, ids=str)
def test_second_derivatives_are_those_of_differences(case):
    x, weight, attention, _ = inputs(case)
    names = [n for n, t in attention._asdict().items() if t is not None]

    def function(x, weight, *factors):
        with dc.backend("native"):
            return dc.dynamic_conv(x, weight, dc.Attention(**dict(zip(names, factors, strict=True))), **geometry(case))

    leaves = (x, weight, *(getattr(attention, n) for n in names))
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("case", [Case("1", (4, 5), (3, 3), 2, padding=1), CASES[-2]], ids=["dense", "depthwise"])
def test_is_an_operation_of_torch(case):
    x, weight, attention, _ = inputs(case, torch.float32)
    if case.groups == 1:
        torch.library.opcheck(native, (x, weight, *attention, [1, 1], [1, 1], [1, 1], 1))
    else:
        kernels = torch.randn(case.batch, 9, case.c_in, requires_grad=True)
        torch.library.opcheck(native_depthwise, (x, kernels, [3, 3], [1, 1], [1, 1], [1, 1]))


def test_a_compiled_step_uses_it():
    torch._dynamo.reset()
    conv = dc.ODConv2d(16, 16, 3, padding=1, num_kernels=2)
    x = torch.randn(3, 16, 6, 6).to(memory_format=torch.channels_last)
    compiled = torch.compile(conv, fullgraph=True)
    with torch.profiler.profile() as profile:
        y = compiled(x)
        y.sum().backward()
    names = {event.name for event in profile.events()}
    assert {"dynconv::native", "dynconv::native_backward"} <= names
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_refuses():
    case = Case("max", (5, 5), (3, 3), 4, combine="max")
    assert "maximum" in supports(problem(case))
    assert "kernel per position" in supports(problem(Case("2d", (5, 5), (3, 3), 4, per_position=True)))
    x, weight, attention, _ = inputs(Case("2d", (5, 5), (3, 3)), torch.float32)
    meta = (t.to("meta") for t in attention)
    assert dc.dynamic_conv(x.to("meta"), weight.to("meta"), dc.Attention(*meta)).shape == (3, 4, 3, 3)


def test_memory_kept_from_inference_serves_training():
    case = Case("2d", (5, 5), (3, 3), 5, 2, 9, 11, padding=1)
    x, weight, attention, _ = inputs(case)
    with torch.inference_mode(), dc.backend("native"):
        dc.dynamic_conv(x, weight, attention, padding=1)
    assert_close(run("native", case, torch.float64), run("reference", case, torch.float64), 1e-10)


def test_types_must_agree():
    x, weight, attention, _ = inputs(CASES[0], torch.float32)
    with pytest.raises(ValueError, match="x is torch.float32 on cpu, weight is torch.float64 on cpu"):
        dc.dynamic_conv(x, weight.double(), attention, padding=1)


def test_index_tables_do_not_pile_up():
    """What images of ever other sizes leave behind."""
    weight = torch.randn(1, 2, 2, 3, 3)
    connections.kept.clear()
    with dc.backend("native"):
        for size in range(40, 140):
            dc.dynamic_conv(torch.randn(1, 2, size, 40), weight, dc.Attention(), padding=1)
    assert len(connections.kept) == 100
    assert connections.limit == _neighbours.limit == 256 * 2**20
    tables = recent(1000 + 2 * 500)(lambda n: (torch.zeros(n, dtype=torch.uint8),))
    first = tables(400)
    assert tables(500) and tables(400) is first and tables(300)
    assert len(tables(1501)[0]) == 1501
    assert list(tables.kept) == [(400,), (300,)]  # the one asked for the longest ago has gone


def test_chosen_for_common_shapes():
    x, weight, attention, _ = inputs(Case("2d", (14, 14), (3, 3), 4, 8, 64, 64, padding=1), torch.float32)
    with torch.no_grad():
        assert name_of(choose_backend(Problem.of(x, weight, attention, 1, 1, 1, 1))) == "native"

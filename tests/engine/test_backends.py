"""Every backend against the reference, which test_reference.py holds to the equation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from problems import ALL, CASES, Case, geometry, inputs, problem

import dynconv_plugins as dc
from dynconv_plugins.backends import BACKENDS, choose_backend, force, gemm, grouped, name_of
from dynconv_plugins.native.library import unavailable

# `fused` runs on GPUs; test_fused.py holds it to the same. `native` needs a C compiler.
LEFT_OUT = {"reference", "fused"} | ({"native"} if unavailable(torch.float32) else set())
FAST = [name for name in BACKENDS if name not in LEFT_OUT]


def supported(name: str, case: Case) -> bool:
    return BACKENDS[name].supports(problem(case)) is None


def those_of(name: str, cases: list[Case]) -> list[Case]:
    """What a backend can run, which is something."""
    there = [case for case in cases if supported(name, case)]
    assert there, f"{name} runs none of the cases"
    return there


PAIRS = [pytest.param(name, case, id=f"{name}-{case}") for case in CASES for name in FAST if supported(name, case)]


def run(name: str, case: Case, dtype: torch.dtype, prepare=lambda x: x, call=dc.dynamic_conv):
    """Output and every gradient, in `dtype`."""
    x, weight, attention, bias = inputs(case, dtype)
    x = prepare(x.detach()).requires_grad_()
    with dc.backend(name):
        y = call(x, weight, attention, bias=bias, **geometry(case))
    # A gradient that differs everywhere, so that a transposed or shifted result cannot pass.
    seed = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().reshape(y.shape).to(y.dtype)
    leaves = {"x": x, "weight": weight, "bias": bias, **attention._asdict()}
    leaves = {n: t for n, t in leaves.items() if t is not None}
    grads = torch.autograd.grad(y, list(leaves.values()), seed)
    return {"y": y.detach(), **dict(zip(leaves, grads, strict=True))}


def assert_close(got: dict, want: dict, rtol: float) -> None:
    assert got.keys() == want.keys()
    for name, expected in want.items():
        scale = expected.abs().max().clamp(min=1e-30)
        error = ((got[name].to(expected.dtype) - expected).abs().max() / scale).item()
        assert error <= rtol, f"{name}: relative error {error:.2e} over {rtol:.0e}"


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_float64(name, case):
    assert_close(run(name, case, torch.float64), run("reference", case, torch.float64), 1e-10)


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_float32(name, case):
    assert_close(run(name, case, torch.float32), run("reference", case, torch.float64), 1e-5)


def test_a_forced_backend_reaches_other_threads():
    """On a GPU, autograd recomputes what is checkpointed in a thread of its own."""
    seen = []
    with dc.backend("gemm"):
        thread = threading.Thread(target=lambda: seen.append(choose_backend(problem(CASES[0]))))
        thread.start()
        thread.join()
    assert seen == [BACKENDS["gemm"]]


def test_a_forced_module_stays_in_its_thread():
    """In blocks that overlap, of which the first to begin is the first to end."""
    here, there, asked = ExitStack(), ExitStack(), problem(CASES[0])
    with ThreadPoolExecutor(1) as other, dc.backend("reference"):
        here.enter_context(force(gemm))
        other.submit(there.enter_context, force(grouped)).result()
        assert [choose_backend(asked), other.submit(choose_backend, asked).result()] == [gemm, grouped]
        here.close()
        other.submit(there.close).result()
        left = [choose_backend(asked), other.submit(choose_backend, asked).result()]
    assert left == [BACKENDS["reference"]] * 2


def test_compiled_code_follows_its_own_thread():
    graphs, op, x = [], dc.ODConv2d(4, 4, 3).eval(), torch.randn(2, 4, 5, 5)
    torch._dynamo.reset()
    compiled = torch.compile(op, backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True)
    with ThreadPoolExecutor(1) as other:
        compiled(x)
        with force(grouped):
            other.submit(compiled, x).result()
            assert len(graphs) == 1, "compiled again for what another thread forces"
            compiled(x)
        compiled(x)
    assert len(graphs) == 2


def test_what_a_forced_backend_cannot_run_says_how_it_was_forced(monkeypatch):
    case = next(case for case in CASES if case.per_position)
    with dc.backend("gemm"), pytest.raises(ValueError, match="gemm.*per position.*leave its block"):
        choose_backend(problem(case))
    monkeypatch.setenv("DYNCONV_BACKEND", "gemm")
    with pytest.raises(ValueError, match="gemm.*per position.*unset DYNCONV_BACKEND"):
        choose_backend(problem(case))


def test_every_case_has_a_backend_chosen():
    """The cheapest that supports it: never the loop, never one that refuses, never none."""
    for case in CASES:
        chosen = name_of(choose_backend(problem(case)))
        assert chosen in FAST and supported(chosen, case), case


@pytest.mark.parametrize("name", ["grouped", "gemm"])
def test_a_maximum_is_not_aggregated(name):
    x, weight, attention, _ = inputs(Case("2d-max-K4", (5, 5), (3, 3), 4, combine="max"))
    with dc.backend(name), pytest.raises(ValueError, match="maximum of K outputs"):
        dc.dynamic_conv(x, weight, attention, combine="max")
    with pytest.raises(ValueError, match="combine must be 'sum' or 'max', got 'mean'"):
        dc.dynamic_conv(x, weight, attention, combine="mean")


TRACED = [case for case in CASES if case.combine == "max" or case.per_position]


@pytest.mark.parametrize("case", TRACED, ids=str)
def test_traced(case):
    """What only the shared weights can do, in plain operations, with every gradient."""
    torch._dynamo.reset()
    traced = torch.compile(dc.dynamic_conv, backend="eager", fullgraph=True)
    assert_close(run("mixture", case, torch.float64, call=traced), run("reference", case, torch.float64), 1e-10)


LAYOUTS = {
    "channels-last": lambda x: x.to(memory_format={4: torch.channels_last, 5: torch.channels_last_3d}[x.dim()]),
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "every-second-channel": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FAST)
def test_layouts(name, layout):
    for case in those_of(name, [c for c in CASES if len(c.size) > 1]):
        want = run("reference", case, torch.float64, LAYOUTS[layout])
        assert_close(run(name, case, torch.float64, LAYOUTS[layout]), want, 1e-10)


@pytest.mark.parametrize("name", FAST)
def test_memory_format_is_kept(name):
    case = Case("2d-K4", (6, 6), (3, 3), 4, c_out=8, padding=1)
    x, weight, attention, _ = inputs(case)
    with dc.backend(name):
        plain = dc.dynamic_conv(x, weight, attention, padding=1)
        last = dc.dynamic_conv(x.to(memory_format=torch.channels_last), weight, attention, padding=1)
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)


TINY = [
    Case("K1", (4, 3), (3, 2), 1, batch=2, c_in=4, stride=(1, 2), padding=1, groups=2),
    Case("K4", (4, 3), (3, 2), 4, batch=2, c_in=4, stride=(1, 2), padding=1, groups=2),
    Case("max-K4", (4, 3), (3, 2), 4, batch=2, c_in=4, stride=(1, 2), padding=1, groups=2, combine="max"),
]


@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(n, c, id=f"{n}-{c}") for c in TINY for n in BACKENDS if supported(n, c)],
)
def test_gradcheck(name, case):
    x, weight, attention, bias = inputs(case)
    there = [t for t in attention if t is not None]

    def function(x, weight, bias, *factors):
        return dc.dynamic_conv(x, weight, dc.Attention(*factors), bias=bias, **geometry(case))

    with dc.backend(name):
        assert torch.autograd.gradcheck(function, (x, weight, bias, *there))


@pytest.mark.parametrize("name", FAST)
def test_same_result_twice(name):
    case = Case("2d-K4", (9, 8), (3, 3), 4, batch=4, padding=1)
    first, second = run(name, case, torch.float32), run(name, case, torch.float32)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", FAST)
def test_nothing_is_read_from_fresh_memory(name):
    """Deterministic mode fills fresh memory with NaN: a backend that reads an element it did not write shows it."""
    case = Case("2d-K4", (9, 8), (3, 3), 4, stride=2, padding=2, dilation=2)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(4).isnan().all()
        got = run(name, case, torch.float64)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(got, run("reference", case, torch.float64), 1e-10)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("frozen", ["x", "weight", "attention"])
def test_gradients_of_some_inputs_only(name, frozen):
    case = Case("2d-K4", (5, 5), (3, 3), 4, padding=1, bias=False)
    want = run("reference", case, torch.float64)
    x, weight, attention, _ = inputs(case)
    free = {"x": [x], "weight": [weight], "attention": list(attention)}
    for tensor in free.pop(frozen):
        tensor.requires_grad_(False)
    with dc.backend(name):
        y = dc.dynamic_conv(x, weight, attention, **geometry(case))
    seed = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().reshape(y.shape)
    wanted = {"x": [want["x"]], "weight": [want["weight"]], "attention": [want[n] for n in attention._fields]}
    for key, tensors in free.items():
        for got, expected in zip(torch.autograd.grad(y, tensors, seed, retain_graph=True), wanted[key], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FAST)
def test_gate_of_zero_has_its_gradient(name):
    """The gradient of a filter's gate must not be computed by dividing by the gate."""
    case = Case("2d-K4", (5, 5), (3, 3), 4, padding=1)
    x, weight, attention, _ = inputs(case)
    attention = attention._replace(output=torch.zeros_like(attention.output).requires_grad_())
    grads = []
    for backend in (name, "reference"):
        with dc.backend(backend):
            y = dc.dynamic_conv(x, weight, attention, **geometry(case))
        grads.append(torch.autograd.grad(y.sum(), attention.output)[0])
    torch.testing.assert_close(*grads)
    assert grads[0].abs().max() > 0


@pytest.mark.parametrize("name", FAST)
def test_batch_mates_do_not_matter(name):
    for case in those_of(name, [c for c in CASES if c.batch > 1]):
        x, weight, attention, _ = inputs(case)
        with torch.no_grad(), dc.backend(name):
            together = dc.dynamic_conv(x, weight, attention, **geometry(case))
            mates = [None if t is None else torch.cat([t[:1], torch.randn_like(t[1:])]) for t in (x, *attention)]
            other = dc.dynamic_conv(mates[0], weight, dc.Attention(*mates[1:]), **geometry(case))
        torch.testing.assert_close(together[0], other[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAST)
def test_autocast(name, dtype):
    case = Case("2d-K4", (8, 8), (3, 3), 4, c_in=16, c_out=8, padding=1)
    x, weight, attention, bias = inputs(case, torch.float32)
    with dc.backend(name), torch.autocast("cpu", dtype):
        y = dc.dynamic_conv(x, weight, attention, bias=bias, **geometry(case))
    assert y.dtype == dtype
    with dc.backend("reference"):
        want = dc.dynamic_conv(x, weight, attention, bias=bias, **geometry(case))
    assert (y.float() - want).abs().max() / want.abs().max() < 2e-2
    grads = torch.autograd.grad(y.float().sum(), [x, weight, bias, *attention])
    wanted = torch.autograd.grad(want.sum(), [x, weight, bias, *attention])
    for got, expected in zip(grads, wanted, strict=True):
        assert got.dtype == torch.float32
        assert (got - expected).norm() / expected.norm() < 3e-2


def test_factors_are_all_used():
    """Guards the table itself: leaving any factor out changes the result of a case that has it."""
    case = next(c for c in CASES if c.factors == ALL and c.kernels == 4)
    x, weight, attention, _ = inputs(case)
    with torch.no_grad():
        full = dc.dynamic_conv(x, weight, attention, **geometry(case))
        for field in attention._fields:
            without = dc.dynamic_conv(x, weight, attention._replace(**{field: None}), **geometry(case))
            assert not torch.allclose(full, without)

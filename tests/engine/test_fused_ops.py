"""The fused kernels as operators of torch, compiled, exported and counted, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fused_cases import DEVICE, K4, interpreted_without_a_gpu  # noqa: F401 - the last is a fixture
from problems import ALL, inputs, problem

import dynconv_plugins as dc
from dynconv_plugins.backends import choose_backend, force, fused, grouped, name_of
from dynconv_plugins.kernels import geometry


@pytest.mark.parametrize("channels_last", [False, True])
def test_operators_are_registered_as_torch_wants_them(channels_last):
    """Schema, fake implementation, autograd, and tracing with symbolic shapes."""
    x, weight, attention, _ = inputs(replace(K4, size=(2, 3), c_in=16, c_out=16, kernels=2), torch.float32)
    x = x.detach().to(DEVICE, memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    tensors = [t.detach().to(DEVICE).requires_grad_() for t in (x, weight, *attention)]
    torch.library.opcheck(torch.ops.dynconv.fused.default, (*tensors, [1, 1], [1, 1], [1, 1]))


def test_weights_that_lie_channels_last_are_not_copied():
    """As an operator of a network in channels last keeps them."""
    flat = torch.randn(4 * 18, 17, 3, 3).to(memory_format=torch.channels_last)
    assert geometry.filters(flat.unflatten(0, (4, 18))).data_ptr() == flat.data_ptr()


def test_compiled_without_break_and_once_for_every_batch():
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(dc.dynamic_conv, backend=count, fullgraph=True, dynamic=True)
    for batch in (3, 2, 5):
        case = replace(K4, batch=batch, kernels=2)
        x, weight, attention, _ = inputs(case, torch.float32)
        x, weight, *factors = (t.detach().to(DEVICE) for t in (x, weight, *attention))
        with torch.no_grad(), force(fused):
            y = compiled(x, weight, dc.Attention(*factors), padding=1)
        want = dc.dynamic_conv(x, weight, dc.Attention(*factors), padding=1)
        torch.testing.assert_close(y, want, rtol=1e-4, atol=1e-4)
    assert len(graphs) == 1
    assert any(node.target is torch.ops.dynconv.fused.default for node in graphs[0].graph.nodes)


def test_compiled_training():
    """The gradients of a compiled call, whose backward is one operator in the graph too."""
    x, weight, attention, _ = inputs(replace(K4, kernels=2), torch.float32)
    leaves = [t.detach().to(DEVICE).requires_grad_() for t in (x, weight, *attention)]

    def loss(x, weight, *factors):
        return dc.dynamic_conv(x, weight, dc.Attention(*factors), padding=1).square().sum()

    torch._dynamo.reset()
    with force(fused):
        got = torch.autograd.grad(torch.compile(loss, backend="aot_eager", fullgraph=True)(*leaves), leaves)
        want = torch.autograd.grad(loss(*leaves), leaves)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("factors", [ALL, frozenset({"kernel"})], ids=["all", "kernel"])
def test_second_derivatives(factors):
    """Of a gradient penalty, whose factors depend on x, as attention does."""
    case = replace(K4, size=(3, 3), c_in=32, c_out=32, kernels=2, groups=2, factors=factors)
    x, weight, attention, _ = inputs(case, torch.float32)
    leaves = [t.detach().to(DEVICE).requires_grad_() for t in (x, weight)]
    given = dc.Attention(*(None if t is None else t.detach().to(DEVICE) for t in attention))
    found = []
    for backend in (fused, grouped):
        with force(backend):
            attended = dc.Attention(*(None if t is None else t * leaves[0].square().mean() for t in given))
            y = dc.dynamic_conv(*leaves, attended, padding=1, groups=2)
            first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
            found.append(torch.autograd.grad(sum(g.square().sum() for g in first), leaves))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())


def test_refuses_to_be_exported():
    """An exported graph, of ONNX above all, must hold operators that others know."""
    x, weight, attention, _ = inputs(K4, torch.float32)

    class Layer(torch.nn.Module):
        def forward(self, x, weight, *factors):
            return dc.dynamic_conv(x, weight, dc.Attention(*factors), padding=1)

    tensors = tuple(t.detach().to(DEVICE) for t in (x, weight, *attention))
    exported = torch.export.export(Layer(), tensors)
    assert not any("dynconv" in str(node.target) for node in exported.graph.nodes)
    with force(fused), pytest.raises(Exception, match="exported graph"):
        torch.export.export(Layer(), tensors)
    with force(fused), pytest.raises(ValueError, match="exported graph"):
        torch.jit.trace(Layer(), tensors)


def test_flops_are_twice_the_multiply_adds():
    from torch.utils.flop_counter import FlopCounterMode

    x, weight, attention, _ = inputs(K4, torch.float32)
    x, weight, *factors = (t.detach().to(DEVICE).requires_grad_() for t in (x, weight, *attention))
    with FlopCounterMode(display=False) as forward, force(fused):
        y = dc.dynamic_conv(x, weight, dc.Attention(*factors), padding=1)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    positions, one = 8 * 7, 18 * 17 * 4
    # The convolution, mixing and scaling 4 kernels, scaling by filter, pooling for the attentions.
    assert forward.get_total_flops() == 2 * 2 * (positions * one + 2 * 4 * one + one + positions * 17)
    assert backward.get_total_flops() == 2 * 2 * 2 * positions * one


REFUSED = [
    (replace(K4, per_position=True), torch.float32, "kernel per position"),
    (replace(K4, combine="max"), torch.float32, "maximum of K outputs"),
    (K4, torch.float64, "torch.float64"),
    (replace(K4, c_in=8), torch.float32, "8 channels per group are too few"),
    (replace(K4, c_in=64, c_out=64, groups=64), torch.float32, "1 channels per group are too few"),
]


@pytest.mark.parametrize(("case", "dtype", "reason"), REFUSED, ids=[r for *_, r in REFUSED])
def test_refusals_name_their_reason(case, dtype, reason):
    assert reason in fused.supports(replace(problem(case), dtype=dtype, device=DEVICE))


def test_refuses_a_cpu_that_is_not_interpreting(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    asked = replace(problem(K4), dtype=torch.float32)
    assert "need a CUDA device" in fused.supports(asked)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert fused.supports(asked) is None
    assert name_of(choose_backend(asked)) != "fused"


def test_refuses_offsets_of_more_than_32_bits():
    huge = replace(problem(K4), dtype=torch.bfloat16, device="cuda", size=(2**16, 2**15))
    assert "32 bits" in fused.supports(huge)
    assert fused.supports(replace(huge, size=(2**12, 2**12), batch=2**12)) is None


def test_chosen_on_cuda():
    layer = replace(problem(K4), c_in=128, c_out=128, size=(28, 28), out_size=(28, 28), batch=256)
    assert name_of(choose_backend(replace(layer, dtype=torch.bfloat16, device="cuda"))) == "fused"

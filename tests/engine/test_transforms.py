"""torch.func and torch.fx: what takes the forward of a network apart."""

from __future__ import annotations

import pytest
import torch
from battery import build, data
from torch import fx, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap

import dynconv_plugins as dc
from dynconv_plugins.budget import Budget
from dynconv_plugins.native.library import unavailable

NAMES = pytest.mark.parametrize("name", dc.registry.names())
SMOOTH = [name for name in dc.registry.names() if name != "hard"]  # its gradient is another by design
FORMATS = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)


@NAMES
@FORMATS
def test_gradients_of_a_functional_call(name, memory_format):
    op, x = build(name).eval(), data().to(memory_format=memory_format)
    parameters = dict(op.named_parameters())

    def loss(parameters, x):
        return functional_call(op, parameters, (x,)).sin().sum()

    together = grad(loss)(parameters, x)
    loss(parameters, x).backward()
    for key, value in parameters.items():
        want = torch.zeros_like(value) if value.grad is None else value.grad
        torch.testing.assert_close(together[key], want, msg=key)
    apart = vmap(grad(loss), (None, 0))(parameters, x[:, None])
    for key, value in apart.items():
        torch.testing.assert_close(value.sum(0), together[key], msg=key)


@NAMES
@FORMATS
def test_vmap_over_samples(name, memory_format):
    op, x = build(name).eval(), data().to(memory_format=memory_format)
    torch.testing.assert_close(vmap(op)(x), op(x))


@pytest.mark.skipif(unavailable(torch.float32) is not None, reason="needs a C compiler")
def test_what_torch_func_does_not_see_into_is_refused():
    with dc.backend("native"), pytest.raises(ValueError, match="torch.func does not see into"):
        vmap(build("odconv").eval())(data())


@NAMES
def test_tracers_see_one_node_an_operator(name):
    net = nn.Sequential(build(name), nn.ReLU(), nn.Sequential(build(name, in_channels=6))).eval()
    traced = fx.symbolic_trace(net)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1", "2.0"]
    assert torch.equal(traced(data()), net(data()))


def test_feature_extractor():
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    net = nn.Sequential(build("odconv"), nn.ReLU(), build("dyconv", in_channels=6)).eval()
    found = extraction.create_feature_extractor(net, {"0": "first", "2": "last"})(data())
    assert torch.equal(found["first"], net[0](data())) and torch.equal(found["last"], net(data()))


@pytest.mark.parametrize("name", SMOOTH)
def test_forward_mode_derivatives(name):
    op, x, direction = build(name).double().eval(), data().double(), torch.randn_like(data()).double()
    with forward_ad.dual_level():
        got = forward_ad.unpack_dual(op(forward_ad.make_dual(x, direction))).tangent
    step = 1e-6
    want = (op(x + step * direction) - op(x - step * direction)) / (2 * step)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", SMOOTH)
def test_second_derivatives_of_every_attention(name):
    op, x = build(name).eval(), data(batch=2, size=4).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: op(x).sin(), x, fast_mode=True)


def test_second_derivatives_of_hard_attention_are_finite():
    op, x = build("hard").eval(), data().requires_grad_()
    (first,) = torch.autograd.grad(op(x).sin().sum(), x, create_graph=True)
    first.square().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("annealing", [False, True])
def test_compiled_gradients_of_a_functional_call(annealing):
    """What torch.func does not see into is left out where a compiler traces the transform, too."""
    op, x = build("odconv").eval(), data()
    if annealing:
        dc.anneal(op).eval()
    parameters = dict(op.named_parameters())

    def loss(parameters, x):
        return functional_call(op, parameters, (x,)).sin().sum()

    torch._dynamo.reset()
    together = torch.compile(grad(loss), backend="eager", fullgraph=True)(parameters, x)
    op(x).sin().sum().backward()
    for key, value in parameters.items():
        torch.testing.assert_close(together[key], value.grad, msg=key)


def test_gradients_of_hard_attention_in_training():
    op, x = build("hard").train(), data()
    parameters = dict(op.named_parameters())

    def loss(parameters, x):
        return functional_call(op, parameters, (x,)).sin().sum()

    grad(loss)(parameters, x)
    apart = vmap(grad(loss), (None, 0))(parameters, x[:, None])
    for key, value in apart.items():
        torch.testing.assert_close(value[1], grad(loss)(parameters, x[1:2])[key], msg=key)
    torch._dynamo.reset()
    torch.compile(grad(loss), backend="aot_eager", fullgraph=True)(parameters, x)
    assert all(module.step == 0 for module in op.modules() if isinstance(module, Budget))

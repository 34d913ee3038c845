"""The chain of localsoft: what goes from layer to layer, and what does not.

The battery has the single layer.
"""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from battery import DIMS
from localsoft_networks import Children, carrier, data, define, definition, grads, layers, net, operators, scalar
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.convert import connect
from dynconv_plugins.placement import convolutions


@DIMS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_kernels": 1},
        {"stride": 2, "dilation": 2, "padding": 2, "temperature": 3.0},
        {"kernel_size": 4, "padding": "same", "padding_mode": "circular", "groups": 2},
        {"kernel_size": 2, "padding": "same"},
        {"padding_mode": "reflect"},
    ],
    ids=str,
)
def test_formula(dims, options):
    model = net(count=2, dims=dims, **options)
    x = data(dims=dims).requires_grad_()
    leaves = [x, *model.parameters()]
    got, want = model(x), definition(model, x)
    torch.testing.assert_close(got, want)
    pairs = zip(torch.autograd.grad(scalar(got), leaves), torch.autograd.grad(scalar(want), leaves), strict=True)
    for name, (g, w) in zip(["x", *(name for name, _ in model.named_parameters())], pairs, strict=True):
        torch.testing.assert_close(g, w, msg=lambda m, name=name: f"gradient of {name}: {m}")
        assert g.any() or (options.get("num_kernels") == 1 and "attention" in name), f"no gradient of {name}"


def test_the_chain_matters():
    model, apart = net(), nn.Sequential(*(nn.Sequential(op, nn.Tanh()) for op in layers()))
    torch.testing.assert_close(model[0](data()), apart[0](data()))
    assert (model(data()) - apart(data())).abs().max() > 1e-3


def test_gradcheck():
    model = net(count=2, dims=1, width=2, num_kernels=2)
    assert torch.autograd.gradcheck(model, (data(dims=1, batch=2, size=3).requires_grad_(),))


def test_shuffled_samples_give_shuffled_outputs():
    model, order = net(), [2, 0, 1]
    torch.testing.assert_close(model(data()[order]), model(data())[order])
    torch.testing.assert_close(model(data()[1:2]), model(data())[1:2])


def test_a_layer_alone_starts_from_its_own_state():
    model, x = net(), data()
    want = define(operators(model)[2], x, None)[0]
    model(x)
    torch.testing.assert_close(operators(model)[2](x), want)
    torch.testing.assert_close(operators(model)[2](x), want)
    operators(model)[0](x)
    torch.testing.assert_close(operators(model)[2](x), want, msg="not the layer right before it")


def test_children_called_one_by_one_are_the_network():
    model, x = net(), data()
    children = Children(model)
    for _ in range(2):
        torch.testing.assert_close(children(x), definition(model, x))
        torch.testing.assert_close(model(x), definition(model, x))
    torch.testing.assert_close(grads(children, x), grads(net(), x))


def test_what_an_interrupted_call_left_is_not_used():
    model = net()
    operators(model)[0](data())
    torch.testing.assert_close(operators(model)[1](data(batch=2)), define(operators(model)[1], data(batch=2), None)[0])
    for error in (ValueError, KeyboardInterrupt):
        handle = model[1].register_forward_hook(lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(error):
            model(data(3))
        handle.remove()
        torch.testing.assert_close(model(data()), definition(model, data()))
        assert carrier(model).chain.value is None
    handle = model[1].register_forward_hook(lambda *_: (_ for _ in ()).throw(ValueError))
    with pytest.raises(ValueError):
        model(data(3))
    assert carrier(model).chain.value is None, "what a failed forward left is dropped"


def test_nothing_live_is_kept():
    model = net().eval()
    with torch.no_grad():
        model(data())
    assert carrier(model).chain.value is None and not carrier(model).kept
    model.train()(data())
    assert carrier(model).chain.value is None
    starts = [start for kept in carrier(model).kept.values() for start in kept]
    assert len(starts) == 3
    assert not any(t.requires_grad for start in starts for t in start[:2] if t is not None)


def test_layers_that_run_more_than_once_go_on():
    op = net(count=1)
    model = connect(nn.Sequential(op, op))
    first, representation = define(operators(op)[0], data(), None)
    torch.testing.assert_close(model(data()), define(operators(op)[0], first.tanh(), representation)[0].tanh())


def test_another_batch_size_starts_anew():
    """As in the second stage of a detector, whose samples are regions."""

    class Regions(nn.Module):
        def forward(self, x):
            return x.repeat_interleave(2, 0)

    ops = layers(2)
    model = connect(nn.Sequential(ops[0], Regions(), ops[1]))
    want = define(ops[1], define(ops[0], data(), None)[0].repeat_interleave(2, 0), None)[0]
    torch.testing.assert_close(model(data()), want)


def test_threads_do_not_meet():
    """Two threads in one network, in step after the first layer; replicas of data parallelism are like this."""
    model, barrier, outputs = net(), threading.Barrier(2, timeout=60), {}

    def wait(*_) -> None:
        barrier.wait()

    model[0].register_forward_hook(wait)
    inputs = [data(), data(2)]

    def work(i: int) -> None:
        outputs[i] = model(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(inputs):
        torch.testing.assert_close(outputs[i], definition(model, x))


def test_connecting_again_does_no_harm():
    model = net()
    want = model(data())
    connect(connect(model))
    assert len(model._forward_pre_hooks) == len(model._forward_hooks) == 1
    torch.testing.assert_close(model(data()), want)
    wrapper = connect(nn.Sequential(model))
    torch.testing.assert_close(wrapper(data()), want)
    torch.testing.assert_close(model(data()), want)


def test_dynamize_connects():
    static = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)).double()
    model = dc.dynamize(copy.deepcopy(static), "localsoft", "all")
    torch.testing.assert_close(model(data()), static(data()))
    assert carrier(model) is not None and operators(model)[1].attention.index == 1
    assert not convolutions(model), "the attention has convolutions that could be made dynamic"

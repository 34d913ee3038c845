"""Training with the chain of localsoft: checkpointing, several calls a step, autocast, data parallelism."""

from __future__ import annotations

import sys
import threading

import pytest
import torch
from localsoft_networks import Children, Segment, carrier, data, define, definition, grads, net, operators, scalar
from torch import nn

from dynconv_plugins.convert import connect


@pytest.mark.parametrize("wrap", [lambda op: op, Segment], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_calls_in_a_step(wrap, order):
    """Also with inputs of the same pooled values, which only later layers tell apart."""
    x1, x2 = data(), data(2)
    for other in (x2, x1.flip(2, 3)):
        want = [a + b for a, b in zip(grads(net(), x1), grads(net(), other), strict=True)]
        torch.testing.assert_close(grads(net(wrap), x1, other, order=order), want)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "build",
    [
        lambda: Segment(net()),
        lambda: net(Segment),
        lambda: connect(nn.Sequential(Segment(net()[:2]), Segment(net()[2:]))),
        lambda: Segment(net(Segment)),
        lambda: Children(net(Segment)),
    ],
    ids=["whole", "layers", "parts", "nested", "children"],
)
def test_checkpointing_changes_nothing(build, training):
    model, plain = build().train(training), net().train(training)
    torch.testing.assert_close(model(data()), plain(data()))
    for _ in range(2):  # the second time with what is kept of the first
        torch.testing.assert_close(grads(model, data()), grads(plain, data()))


def test_frozen_layers_under_checkpointing():
    """What is recomputed needs gradients exactly where the original did."""
    model, plain = net(Segment), net()
    for each in (model, plain):
        for parameter in [*operators(each)[0].parameters(), *operators(each)[1].attention.parameters()]:
            parameter.requires_grad_(False)
    torch.testing.assert_close(grads(model, data()), grads(plain, data()))


def test_reentrant_checkpointing_cuts_the_gradient_of_the_chain_and_nothing_else():
    model, plain = net(lambda op: Segment(op, reentrant=True)), net()
    x = data().requires_grad_()
    got = grads(model, x)
    want = torch.autograd.grad(scalar(definition(plain, x, cut=True)), [x, *plain.parameters()])
    torch.testing.assert_close([x.grad, *got], list(want))


def test_recomputing_inexactly():
    """Accelerators do: the nearest forward is meant."""
    model, inputs = net(Segment), (data(), data(2))
    losses = [scalar(model(x)) for x in inputs]
    for kept in carrier(model).kept.values():
        rounded = [start._replace(clue=start.clue * (1 + 1e-4)) for start in kept]
        kept.clear()
        kept.extend(rounded)
    for loss in losses:
        loss.backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], grads(net(), *inputs))


def test_too_many_forwards_for_checkpointing_are_an_error():
    model = net(Segment)
    losses = [scalar(model(data(seed))) for seed in range(17)]
    for loss in losses[1:]:
        loss.backward()
    with pytest.raises(RuntimeError, match="checkpointed layer does not find the forward"):
        losses[0].backward()


@pytest.mark.parametrize("wrap", [Segment, lambda op: Segment(op, reentrant=True)], ids=["", "reentrant"])
def test_recomputing_leaves_no_trace(wrap):
    model = net(wrap)
    scalar(model(data().requires_grad_())).backward()
    assert carrier(model).chain.value is None and carrier(model).chain.last is None
    for op in operators(model):
        torch.testing.assert_close(op(data(2)), define(op, data(2), None)[0])
        carrier(model).close(model, (), None)


def test_backward_in_another_thread():
    """Where accelerators run it."""
    model, x = net(Segment), data()
    loss = scalar(model(x))
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    torch.testing.assert_close([p.grad for p in model.parameters()], grads(net(), x))


@pytest.mark.parametrize("temperature", [1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wrap", [lambda op: op, Segment], ids=["plain", "checkpointed"])
def test_autocast(temperature, dtype, wrap):
    model, x = net(wrap, temperature=temperature).float(), data().float()
    want = model(x)
    with torch.autocast("cpu", dtype):
        y = model(x)
    assert (y.float() - want).norm() < (2e-2 if dtype == torch.bfloat16 else 3e-3) * want.norm()
    with torch.autocast("cpu", dtype):
        y = model(data().float() * 50)
    assert y.dtype == dtype and y.isfinite().all()
    y.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_distributed_data_parallel(tmp_path, monkeypatch):
    """Its reducer waits for every parameter's gradient: two steps without `find_unused_parameters`."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # a process group leaves one that names the rank
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for wrap in (lambda op: op, Segment):
            model = nn.parallel.DistributedDataParallel(net(wrap))
            for seed in (1, 2):
                got = grads(model, data(seed))
                assert all(g is not None for g in got)
                torch.testing.assert_close(got, grads(net(), data(seed)))
    finally:
        torch.distributed.destroy_process_group()

"""Setting, scheduling and self-annealing of the temperature."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.checkpoint import checkpoint

import dynconv_plugins as dc
from dynconv_plugins.temperature import has_learned


def network() -> nn.Module:
    return nn.Sequential(dc.ODConv2d(3, 8, 3, num_kernels=4), nn.ReLU(), dc.ODConv2d(8, 4, 3))


def temperatures(model: nn.Module) -> set[float]:
    return {op.attention.temperature.item() for op in dc.operators_in(model).values()}


def test_set_temperature():
    model = network()
    dc.set_temperature(model, 12.5)
    assert temperatures(model) == {12.5}
    with pytest.raises(ValueError, match="positive"):
        dc.set_temperature(model, 0.0)


def test_high_temperature_is_uniform():
    op, x = dc.ODConv2d(3, 8, 3, num_kernels=4).eval(), torch.randn(2, 3, 5, 5)
    sharp = op.attention(x).kernel
    op.set_temperature(1e6)
    flat = op.attention(x).kernel
    torch.testing.assert_close(flat, torch.full_like(flat, 0.25), atol=1e-4, rtol=0)
    assert (sharp - flat).abs().max() > 1e-3


def test_linear():
    schedule = dc.LinearTemperature()
    assert [schedule(e) for e in (0, 5, 10, 20)] == [30.0, 15.5, 1.0, 1.0]
    assert dc.LinearTemperature(epochs=0)(0) == 1.0
    for bad in ({"start": 0.0}, {"end": -1.0}, {"epochs": -1.0}):
        with pytest.raises(ValueError, match="positive"):
            dc.LinearTemperature(**bad)


def test_self_annealing_counts_training_steps_and_resumes():
    model = dc.anneal(network(), 30.0, 1.0, steps=4)
    assert temperatures(model) == {30.0}
    x = torch.randn(2, 3, 9, 9)
    seen = []
    for _ in range(3):
        model(x)
        seen += temperatures(model)
    assert seen == pytest.approx([30.0, 22.75, 15.5])
    model.eval()(x)
    assert temperatures(model) == {15.5}
    resumed = dc.anneal(network(), 30.0, 1.0, steps=4)
    resumed.load_state_dict(model.state_dict())
    twin = copy.deepcopy(resumed)
    for again in (resumed, twin):
        again.train()(x)
        assert temperatures(again) == {8.25}
    resumed(x), resumed(x)
    assert temperatures(resumed) == {1.0} and temperatures(twin) == {8.25}


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputing_the_whole_model_counts_once(reentrant):
    model, x = dc.anneal(network(), 30.0, 1.0, steps=10), torch.randn(2, 3, 9, 9).requires_grad_()
    for step in (1, 2):
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
        assert model.annealing_step == step
    plain = dc.anneal(network(), 30.0, 1.0, steps=10)
    plain.load_state_dict(model.state_dict())
    for each in (model, plain):
        each.zero_grad()
    checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    plain(x).sum().backward()
    for got, want in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad)


@pytest.mark.parametrize("operator", ["odconv4x", "dyconv", "a2d2c", "localsoft", "fdconv"])
def test_two_forwards_before_a_backward(operator):
    model = dc.anneal(dc.dynamize(nn.Sequential(nn.Conv2d(3, 4, 3)), operator, where="all"))
    first, second = torch.randn(2, 2, 3, 9, 9)
    (model(first).sum() + model(second).sum()).backward()
    assert model.annealing_step == 2 and all(p.grad.isfinite().all() for p in model.parameters())


def test_annealing_anew_starts_again_at_the_same_speed():
    model, x = network(), torch.randn(2, 3, 9, 9)
    dc.anneal(model, 30.0, 1.0, steps=4)(x)
    dc.anneal(model, 9.0, 1.0, steps=2)
    assert temperatures(model) == {9.0} and model.annealing_step == 0
    model(x), model(x)
    assert temperatures(model) == {5.0} and model.annealing_step == 2


def test_an_averaged_model_is_evaluated_at_the_temperature_reached():
    """An average over the buffers would leave it near the first."""
    model = dc.anneal(network(), 30.0, 1.0, steps=4)
    average, x = ModelEmaV3(model, decay=0.999), torch.randn(2, 3, 9, 9)
    for _ in range(6):
        model(x)
        average.update(model)
    assert min(temperatures(average.module)) > 29
    average.module.eval()(x)
    assert temperatures(average.module) == {1.0} and average.module.annealing_step == 6
    exported = torch.export.export(average.module, (x,))
    torch.testing.assert_close(exported.module()(x), average.module(x))


def test_evaluation_keeps_the_temperature_that_weights_came_with():
    trained = network()
    dc.set_temperature(trained, 1.0)
    model = dc.anneal(network(), steps=4)
    model.load_state_dict(trained.state_dict(), strict=False)  # of another trainer: they have no counter
    model.eval()(torch.randn(2, 3, 9, 9))
    assert temperatures(model) == {1.0}


def test_weights_of_an_annealed_model_load_without_its_schedule():
    """And nothing else that is unknown does."""
    trained, inner = dc.anneal(network(), steps=4), nn.Sequential(nn.Sequential(dc.anneal(network(), steps=4)))
    model = network()
    model.load_state_dict(trained.state_dict())
    assert temperatures(model) == temperatures(trained) and not hasattr(model, "annealing_step")
    nn.Sequential(nn.Sequential(network())).load_state_dict(inner.state_dict())
    for stray in ("annealing_steps", "0.annealing_step", "1.annealing_step"):
        keys = model.load_state_dict({**trained.state_dict(), stray: torch.zeros(())}, strict=False)
        assert keys.unexpected_keys == ([] if stray == "0.annealing_step" else [stray])


def test_setting_the_temperature_ends_the_annealing():
    model, x = dc.anneal(network(), 30.0, 1.0, steps=4), torch.randn(2, 3, 9, 9)
    model(x)
    dc.set_temperature(model, 7.0)
    model(x), model.eval()(x)
    assert temperatures(model) == {7.0} and model.annealing_step == 1


def test_a_model_without_memory_is_not_annealed():
    with torch.device("meta"):
        model = network()
    with pytest.raises(ValueError, match="to_empty"):
        dc.anneal(model)


def test_has_learned():
    static = nn.Conv2d(3, 4, 3)
    fresh = dc.dynamize(copy.deepcopy(static), "odconv4x")
    assert not has_learned(fresh) and has_learned(dc.ODConv2d(3, 4, 3))
    with torch.no_grad():
        fresh.attention.logits.bias[0] = 1.0
    assert has_learned(fresh)


@pytest.mark.parametrize("name", dc.registry.names())
def test_what_was_converted_has_not_learned(name):
    """Even where the neutral attention is drawn, as condconv's and hard's; and what is drawn next stays the same."""
    fresh = dc.dynamize(nn.Conv2d(3, 4, 3), name, where="all")
    state = torch.get_rng_state()
    assert not has_learned(fresh) and torch.equal(torch.get_rng_state(), state)


def test_routing_that_depends_on_the_input_has_learned():
    op = dc.dynamize(nn.Conv2d(3, 4, 3), "condconv", where="all")
    with torch.no_grad():
        op.attention.routing.weight[0] = 1.0
    assert has_learned(op)


@pytest.mark.parametrize("before", [False, True], ids=["new", "annealed before"])
def test_a_compiled_model_anneals(before):
    # Its guards leave hooks out: code of a network like this one, compiled before without them, would be taken.
    torch._dynamo.reset()
    model = network()
    if before:
        dc.anneal(model, 9.0, 1.0, steps=3)
    compiled = dc.anneal(torch.compile(model, backend="eager"), 30.0, 1.0, steps=10)
    for step in range(3):
        compiled(torch.randn(2, 3, 8, 8))
        assert list(temperatures(model)) == [pytest.approx(30 - 2.9 * step)]
    assert model.annealing_step == 3 and model.annealing.start == 30.0
    dc.set_temperature(model, 5.0)
    compiled(torch.randn(2, 3, 8, 8))
    assert temperatures(model) == {5.0}

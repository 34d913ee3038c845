"""Running statistics that fit the weights."""

import copy

import pytest
import torch
from torch import nn

import dynconv_plugins as dc


def network(operator=dc.ODConv2d, **options):
    torch.manual_seed(0)
    return nn.Sequential(
        operator(3, 8, 3, padding=1, **options), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 4, 1)
    )


def test_statistics_are_the_average_over_the_batches():
    model, batches = network(), torch.randn(3, 16, 3, 6, 6)
    seen = []
    model[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    dc.update_bn(model, batches)
    dims = (0, 2, 3)
    torch.testing.assert_close(model[1].running_mean, torch.stack([x.mean(dims) for x in seen]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([x.var(dims) for x in seen]).mean(0))
    assert len(seen) == 3


def test_one_batch_makes_evaluation_what_training_was():
    """Up to the unbiased variance, the only difference left."""
    model, x = network()[:2], torch.randn(512, 3, 4, 4) * 3 + 1
    before = model.eval()(x)
    dc.update_bn(model, [x])
    trained = model.train()(x)
    assert (before - trained).abs().max() > 0.1
    torch.testing.assert_close(model.eval()(x), model.train()(x), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("kind", [tuple, list])
def test_batches_with_labels(kind):
    model, batches = network(), torch.randn(2, 16, 3, 6, 6)
    twin = copy.deepcopy(model)
    dc.update_bn(model, [kind((x, torch.zeros(16))) for x in batches])
    dc.update_bn(twin, batches)
    assert torch.equal(model[1].running_mean, twin[1].running_mean)


@pytest.mark.parametrize("train", [True, False])
def test_nothing_else_changes(train):
    model = network(dc.Hard2d).train(train)
    model[4].train(not train)  # a mode of its own
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    dc.update_bn(model, torch.randn(2, 8, 3, 6, 6, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(state, torch.get_rng_state()), "neither dropout nor masks are drawn"
    assert modes == [m.training for m in model.modules()]
    norms = {
        f"{k}.{n}"
        for k, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
        for n in ("running_mean", "running_var", "num_batches_tracked")
    }
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == norms
    assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    assert all(p.grad is None for p in model.parameters())


def test_a_failure_leaves_the_model_as_it_was():
    model = network().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError):
        dc.update_bn(model, [torch.randn(4, 3, 6, 6), torch.randn(4, 5, 6, 6)])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())


def test_what_no_batch_reaches_keeps_its_statistics():
    model = network()
    model(torch.randn(4, 3, 6, 6))
    head = {k: v.clone() for k, v in model[0].named_buffers() if "running" in k}
    assert head
    trunk = model[1].running_mean.clone()
    dc.update_bn(model, [torch.randn(1, 3, 6, 6)])  # one value per channel in the attention's head
    assert all(torch.equal(v, head[k]) for k, v in model[0].named_buffers() if "running" in k)
    assert not torch.equal(model[1].running_mean, trunk)
    trunk = model[1].running_mean.clone()
    dc.update_bn(model, [])
    assert torch.equal(model[1].running_mean, trunk)
    dc.update_bn(nn.Linear(2, 2), [torch.randn(1, 2)])
    dc.update_bn(nn.BatchNorm1d(2, track_running_stats=False), [torch.randn(4, 2)])


def trained_head():
    """A network whose attention head has statistics of its own, and a list of what its trunk's norm sees."""
    model, seen = network(), []
    with torch.no_grad():
        for norm in (m for m in model[0].modules() if isinstance(m, nn.BatchNorm1d)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.01, 0.1)
    model[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return model, seen


def test_batches_of_one_meet_the_head_as_it_was():
    model, seen = trained_head()
    batches = torch.randn(3, 1, 3, 6, 6)
    dc.update_bn(model, batches)
    want = model[0].eval()(batches[:, 0])
    torch.testing.assert_close(torch.cat(seen), want)
    torch.testing.assert_close(model[1].running_mean, want.mean((0, 2, 3)))


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_statistics_that_are_no_numbers_are_replaced(broken):
    model, want = network(), network()
    batches = torch.randn(2, 8, 3, 6, 6)
    for norm in (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        norm.running_mean.fill_(broken), norm.running_var.fill_(broken)
    dc.update_bn(model, batches), dc.update_bn(want, batches)
    for got, value in zip(model.buffers(), want.buffers(), strict=True):
        torch.testing.assert_close(got, value)

"""Hard attention's own: the switches, the loss that joins any backward pass, and its ramp."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.utils.checkpoint import checkpoint

import dynconv_plugins as dc
from dynconv_plugins.budget import Budget

MASKS = pytest.mark.parametrize("mask", ["input", "task"])


def make(mask: str = "input", **options) -> nn.Module:
    torch.manual_seed(0)
    op = dc.Hard2d(8, 6, 3, padding=1, mask=mask, **{"ramp": 0, **options}).double()
    for parameter in op.parameters():
        nn.init.normal_(parameter)
    return op


def data() -> torch.Tensor:
    return torch.randn(4, 8, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def logits(op: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return op.attention.logits(x.mean((2, 3))) if op.mask == "input" else op.zeta


@MASKS
def test_everything_is_on_at_first(mask):
    op, static = dc.Hard2d(8, 6, 3, mask=mask), nn.Conv2d(8, 6, 3)
    op.load_static(static)
    x = data().float()
    torch.testing.assert_close(op(x), static(x))
    assert dc.budget(op)["mask_rate"] == 1.0


@MASKS
def test_switches_are_zeros_and_ones(mask):
    op = make(mask).eval()
    zeta = logits(op, data())
    assert 0 < (zeta > 0).double().mean() < 1
    if mask == "input":
        y = op(data())
        off = (y - op.bias.reshape(-1, 1, 1)).flatten(2).abs().sum(2) == 0
        assert torch.equal(off, zeta <= 0)
    else:
        assert torch.equal(op.kernels[0] == 0, (zeta <= 0).expand_as(op.kernels[0]))


@MASKS
def test_the_loss_reaches_a_trainer_that_does_not_know_of_it(mask):
    """Gradients equal those of the trainer's loss plus the budget's, written out, with its straight-through mask."""
    op = make(mask, budget=0.3, budget_weight=7.0, sparsity_weight=0.02)
    plain = copy.deepcopy(op)
    for module in plain.modules():
        if isinstance(module, Budget):
            module.weight = module.sparsity = 0.0
    op(data()).square().mean().backward()
    loss = plain(data()).square().mean()
    zeta = logits(plain, data())
    soft = zeta.sigmoid()
    rate = (soft + ((soft > 0.5).double() - soft).detach()).mean()
    own = 7.0 * (rate - 0.3) ** 2 + 0.02 * zeta.abs().sum() / (len(data()) if mask == "input" else 1)
    (loss + own).backward()
    for (name, got), want in zip(op.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, msg=name)
    assert dc.budget(op)["mask_rate"] == pytest.approx(rate.item())
    assert dc.budget(op)["budget_loss"] == pytest.approx(own.item())


def test_a_scaled_loss_scales_its_own_part():
    op, scaled = make(), make()
    dc.set_loss_scale(scaled, 1024.0)
    op(data()).square().mean().backward()
    (scaled(data()).square().mean() * 1024).backward()
    for got, want in zip(scaled.parameters(), op.parameters(), strict=True):
        torch.testing.assert_close(got.grad / 1024, want.grad)


def test_no_scale_is_compiled_again():
    torch._dynamo.reset()
    op = make()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(op, backend=counter, fullgraph=True)
    grads = []
    for scale in (1.0, 2.0, 4.0):
        dc.set_loss_scale(op, scale)
        op.zero_grad()
        (compiled(data()).square().mean() * scale).backward()
        grads.append(op.attention.logits.weight.grad / scale)
    torch.testing.assert_close(grads[1], grads[0])
    torch.testing.assert_close(grads[2], grads[0])
    assert counter.frame_count == 1


def test_the_weight_is_reached_over_the_ramp_and_resumes():
    op = make(ramp=4, sparsity_weight=0.0)
    seen = []
    for _ in range(3):
        op(data())
        seen.append(dc.budget(op)["budget_loss"])
    resumed = make(ramp=4, sparsity_weight=0.0)
    resumed.load_state_dict(op.state_dict())
    for _ in range(3):
        resumed(data())
        seen.append(dc.budget(resumed)["budget_loss"])
    full = seen[-1]
    assert full > 0
    assert seen == pytest.approx([full * part for part in (0.0, 0.25, 0.5, 0.75, 1.0, 1.0)], rel=1e-5)


@MASKS
def test_checkpointing_counts_a_step_once(mask):
    plain, again = make(mask, ramp=4), make(mask, ramp=4)
    for _ in range(3):
        plain(data()).square().mean().backward()
        checkpoint(again, data(), use_reentrant=False).square().mean().backward()
    assert dc.budget(again) == dc.budget(plain)
    for got, want in zip(again.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad)


def test_nothing_is_counted_outside_training():
    op = make(ramp=4)
    with torch.no_grad():
        op(data())
    op.eval()(data())
    assert all(module.step == 0 for module in op.modules() if isinstance(module, Budget))


def test_rate_comes_down_to_the_budget():
    """Data that no filter matters for: what moves the switches is the budget alone."""
    torch.manual_seed(0)
    op = dc.Hard2d(8, 64, 3, ramp=50)
    nn.init.zeros_(op.weight)
    optimizer = torch.optim.Adam(op.attention.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        optimizer.zero_grad()
        op(torch.randn(16, 8, 5, 5).abs()).sum().backward()
        optimizer.step()
        schedule.step()
    assert dc.budget(op)["mask_rate"] == pytest.approx(0.5, abs=0.05)


def test_budget_of_other_models_is_empty():
    assert dc.budget(dc.ODConv2d(8, 8, 3)) == {}


@pytest.mark.parametrize(
    "options", [{"mask": "tax"}, {"granularity": "tap"}, {"budget": 1.5}, {"ramp": -1}, {"beta": 0.0}], ids=str
)
def test_bad_arguments(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        dc.Hard2d(8, 6, 3, **options)


def test_replicas_of_data_parallelism_count_for_the_model():
    op = dc.Hard2d(3, 4, 3, ramp=10).train()
    replica = copy.copy(op)  # as DataParallel makes them: other modules, the same memory
    replica._modules = {name: copy.copy(module) for name, module in op._modules.items()}
    for name, module in replica._modules.items():
        module._buffers = dict(op._modules[name]._buffers)
    replica(torch.randn(2, 3, 6, 6))
    assert dc.budget(op)["budget_loss"] == dc.budget(replica)["budget_loss"]
    assert [m.step.item() for m in op.modules() if isinstance(m, Budget)] == [1]

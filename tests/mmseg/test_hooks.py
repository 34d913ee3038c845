"""Our hooks in mmengine's own runner: the temperature, and the budget of hard attention."""

from __future__ import annotations

import types

import hook_runs
import pytest
import timm
import torch
from hook_runs import Regressor, run
from mmengine.registry import HOOKS
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError
from mmseg_configs.backbone import DynConvBackbone


def test_falls_per_iteration(tmp_path):
    model, runner = run(tmp_path, dict(iters=4, start=9.0, end=1.0), by_epoch=False, max_iters=6)
    assert model.seen == pytest.approx([9, 7, 5, 3, 1, 1])
    assert runner.message_hub.get_scalar("train/temperature").current() == 1


def test_falls_over_epochs(tmp_path):
    model, _ = run(tmp_path, dict(epochs=1, start=9.0, end=1.0), by_epoch=True, max_epochs=2)
    assert model.seen == pytest.approx([9, 7, 5, 3, 1, 1, 1, 1])


def test_resume_continues_the_schedule(tmp_path):
    hook = dict(iters=5, start=11.0, end=1.0)
    run(tmp_path, hook, by_epoch=False, max_iters=3)
    saved = torch.load(tmp_path / "iter_3.pth", weights_only=False)["state_dict"]
    assert saved["conv.attention.temperature"] == 7
    model, _ = run(tmp_path, hook, by_epoch=False, max_iters=6, resume=True)
    assert model.seen == pytest.approx([5, 3, 1])


@pytest.mark.parametrize("loop", [dict(by_epoch=False, max_iters=8), dict(by_epoch=True, max_epochs=2)])
def test_falls_over_a_part_of_the_training(tmp_path, loop):
    model, _ = run(tmp_path, dict(part=0.5, start=9.0, end=1.0), **loop)
    assert model.seen == pytest.approx([9, 7, 5, 3, 1, 1, 1, 1])


@pytest.mark.parametrize(
    "hook, says",
    [
        (dict(iters=3, epochs=1), "either iters= or epochs="),
        (dict(iters=-1), "iters must be a number of at least 0, not -1"),
        (dict(iters="a"), "iters must be a number of at least 0, not 'a'"),
        (dict(start=0), "start must be a number above 0, not 0"),
        (dict(end=None), "end must be a number above 0"),
        (dict(part=-0.1), "part must be"),
        (dict(part=None), "part must be"),
    ],
)
def test_numbers_out_of_range(hook, says):
    with pytest.raises(UserError, match=says):
        HOOKS.build(dict(type="TemperatureHook", **hook))


class Backbone(Regressor):
    """Two dynamic convolutions, the second frozen."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__(first)
        self.frozen = dc.ODConv2d(4, 4, 3).requires_grad_(False)


def trained(path) -> str:
    """The weights of a network whose attention was trained down to a temperature of 2."""
    model = Backbone(dc.ODConv2d(4, 4, 3, num_kernels=2))
    dc.set_temperature(model, 2.0)
    torch.save({"state_dict": model.state_dict()}, path)
    return str(path)


def annealing(tmp_path, hook, monkeypatch, model, **options):
    """The temperatures that the first convolution of `model` sees, and that of the frozen one afterwards."""
    monkeypatch.setattr(hook_runs, "Regressor", lambda conv, _: model)
    run(tmp_path / "w", dict(iters=2, start=9.0, end=1.0, **hook), by_epoch=False, **options)
    return model.seen, model.frozen.attention.temperature.item()


def test_trained_attention_keeps_its_temperature(tmp_path, monkeypatch):
    def go(hook=None, conv=None, max_iters=3, **options):
        model = Backbone(conv or dc.ODConv2d(4, 4, 3, num_kernels=2))
        return annealing(tmp_path, hook or {}, monkeypatch, model, max_iters=max_iters, **options)

    path = trained(tmp_path / "t.pth")
    assert go() == ([9, 5, 1], 1), "a fresh network anneals, but not what is frozen in it"
    assert go(load_from=path) == ([2, 2, 2], 2)
    assert go(resume=True, max_iters=5) == ([2, 2], 2), "so does the training that goes on from there"
    assert go(dict(force=True), load_from=path) == ([9, 5, 1], 2)
    rest = {key: value for key, value in torch.load(path)["state_dict"].items() if not key.startswith("conv.")}
    torch.save({"state_dict": rest}, path)
    assert go(load_from=path, strict=False) == ([9, 5, 1], 2), "what was not in the file is as fresh as ever"
    static = Backbone(dc.dynamize(nn.Conv2d(4, 4, 3), "odconv", num_kernels=2))
    torch.save({"state_dict": static.state_dict()}, path)
    assert go(load_from=path)[0] == [9, 5, 1], "a static network's weights have yet to learn"


def test_only_the_part_that_was_loaded_keeps_its_temperature(tmp_path):
    weights = timm.create_model("resnet18_odconv", channels=[8, 8, 8, 8], temperature=2.0).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    backbone = DynConvBackbone("resnet18_odconv", channels=[8, 8, 8, 8], frozen_stages=1, checkpoint=tmp_path / "w.pth")
    backbone.init_weights()
    neck = dc.ODConv2d(4, 4, 3)
    hook = HOOKS.build(dict(type="TemperatureHook", iters=4))
    hub = types.SimpleNamespace(update_info=lambda *_: None, update_scalar=lambda *_: None)
    logger = types.SimpleNamespace(info=lambda text: said.append(text))
    said: list[str] = []
    model = nn.ModuleList([backbone, neck])
    runner = types.SimpleNamespace(model=model, iter=0, message_hub=hub, logger=logger)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    assert {op.attention.temperature.item() for op in dc.operators_in(backbone).values()} == {2}
    assert neck.attention.temperature == 30
    assert len(said) == 1 and "keeps its temperature, 2 (16 of 17 layers)" in said[0]


def test_refuses_a_static_model(tmp_path):
    with pytest.raises(UserError, match="no dynamic convolution"):
        run(tmp_path, dict(iters=3), conv=nn.Conv2d(4, 4, 3), by_epoch=False, max_iters=1)


def hard(**options):
    torch.manual_seed(0)
    return dc.Hard2d(4, 4, 3, ramp=0, sparsity_weight=0.0, **options)


def test_budget_is_logged(tmp_path):
    model, runner = run(tmp_path, {}, kind="BudgetHook", conv=hard(budget=0.25), by_epoch=False, max_iters=3)
    hub = runner.message_hub
    rate, loss = (hub.get_scalar(f"train/{name}") for name in ("mask_rate", "budget_loss"))
    assert len(rate.data[0]) == 3 and rate.data[0][0] == 1  # everything is on at the start
    assert loss.data[0][0] == pytest.approx(50 * 0.75**2)
    assert dc.budget(model) == pytest.approx({"mask_rate": rate.current(), "budget_loss": loss.current()})


def test_budget_is_scaled_as_the_loss_is(tmp_path):
    """Two half batches accumulated pull the logits as far as their sum divided by two, which is what one batch does."""
    biases = []
    for n, iters in ((1, 1), (2, 2)):
        # The budget's gradient is far larger than that of the outputs, which differ between the batches.
        conv = hard(budget=0.0, budget_weight=1e4)
        optim = dict(accumulative_counts=n)
        model, _ = run(
            tmp_path / str(n), {}, kind="BudgetHook", conv=conv, optim=optim, by_epoch=False, max_iters=iters
        )
        assert model.conv.attention.budget.loss_scale == 1 / n
        biases.append(model.conv.attention.logits.bias.detach())
    torch.testing.assert_close(*biases, atol=0, rtol=1e-3)
    assert biases[0].abs().min() > 1


@pytest.mark.parametrize("n", [1, 2])
def test_budget_is_scaled_as_amp_scales_the_loss(tmp_path, n):
    """Scaled by 1024 and unscaled before the step: the logits end where they do in single precision."""
    biases = []
    for name, optim in (("single", {}), ("amp", dict(type="CPUAmp", loss_scale=1024.0))):
        conv = hard(budget=0.0, budget_weight=1e4)
        optim = dict(optim, accumulative_counts=n)
        loop = dict(by_epoch=False, max_iters=n)
        model, runner = run(tmp_path / name, {}, kind="BudgetHook", conv=conv, optim=optim, **loop)
        biases.append(model.conv.attention.logits.bias.detach())
    assert runner.optim_wrapper.loss_scaler.get_scale() == 1024
    assert model.conv.attention.budget.loss_scale == 1024 / n
    torch.testing.assert_close(*biases, atol=0, rtol=1e-2)


def test_budget_refuses_a_model_without(tmp_path):
    with pytest.raises(UserError, match="no hard attention"):
        run(tmp_path, {}, kind="BudgetHook", by_epoch=False, max_iters=1)

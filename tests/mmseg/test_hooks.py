"""Our hooks in mmengine's own runner: temperature, Ctrl-C, and what they leave for resuming."""

from __future__ import annotations

import os
import signal
import sys
import types

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import TensorDataset
from yapf.yapflib import yapf_api

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError
from mmseg_configs.backbone import DynConvBackbone


@OPTIM_WRAPPERS.register_module(force=True)
class CPUAmp(AmpOptimWrapper):
    """mmengine's mixed precision without its demand for a GPU: torch has a gradient scaler for the CPU too."""

    def __init__(self, loss_scale: float, **kwargs) -> None:
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param, self.cast_dtype = loss_scale, torch.bfloat16
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale)


class Regressor(BaseModel):
    """One dynamic convolution that notes the temperature of every training step."""

    def __init__(self, conv: nn.Module | None = None, signal_in_step: int | None = None) -> None:
        super().__init__()
        self.signal_in_step = signal_in_step
        self.conv = dc.ODConv2d(4, 4, 3, num_kernels=2) if conv is None else conv
        self.seen: list[float] = []

    def forward(self, x, mode="tensor"):
        if self.training and dc.operators_in(self) and hasattr(self.conv.attention, "temperature"):
            self.seen.append(self.conv.attention.temperature.item())
        if self.training and len(self.seen) == self.signal_in_step:
            os.kill(os.getpid(), signal.SIGINT)
        return {"loss": self.conv(x).pow(2).mean()}


def run(
    work_dir,
    hook,
    *,
    conv=None,
    resume=False,
    signal_in_step=None,
    load_from=None,
    strict=True,
    optim=None,
    kind="TemperatureHook",
    **loop,
):
    torch.manual_seed(0)
    model = Regressor(conv, signal_in_step)
    data = TensorDataset(torch.randn(8, 4, 5, 5))
    by_epoch = loop.get("by_epoch", False)
    guard = dict(type="CheckpointGuard", strict=strict)
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=dict(
            dataset=data, batch_size=2, sampler=dict(type=DefaultSampler), collate_fn=dict(type="default_collate")
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01, momentum=0.9), **(optim or {})),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1 if by_epoch else 3, by_epoch=by_epoch)),
        custom_hooks=[dict(type=kind, **hook), dict(type="InterruptHook"), guard],
        default_scope="mmengine",
        resume=resume,
        load_from=load_from,
        cfg=dict(resume=resume, load_from=load_from),
        randomness=dict(seed=0),  # or mmengine draws a seed of its own, and the order of the samples with it
        log_level="WARNING",
        experiment_name=f"{work_dir.name}_{resume}_{loop}".replace(" ", ""),
    )
    runner.train()
    return model, runner


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
    monkeypatch.setattr(sys.modules[__name__], "Regressor", lambda conv, _: model)
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
        biases.append(model.conv.attention.head.bias.detach())
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
        biases.append(model.conv.attention.head.bias.detach())
    assert runner.optim_wrapper.loss_scaler.get_scale() == 1024
    assert model.conv.attention.budget.loss_scale == 1024 / n
    torch.testing.assert_close(*biases, atol=0, rtol=1e-2)


def test_budget_refuses_a_model_without(tmp_path):
    with pytest.raises(UserError, match="no hard attention"):
        run(tmp_path, {}, kind="BudgetHook", by_epoch=False, max_iters=1)


def test_interrupted_training_saves_and_resumes_exactly(tmp_path, capsys):
    hook = dict(iters=5, start=11.0, end=1.0)
    whole, _ = run(tmp_path / "whole", hook, by_epoch=False, max_iters=6)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "cut", hook, signal_in_step=5, by_epoch=False, max_iters=6)
    assert caught.value.code == 130
    assert "interrupted: saved" in capsys.readouterr().err
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert (tmp_path / "cut" / "last_checkpoint").read_text().endswith("iter_5.pth")
    resumed, _ = run(tmp_path / "cut", hook, resume=True, by_epoch=False, max_iters=6)
    assert len(resumed.seen) == 1
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


HOOK = dict(iters=5)


def test_resume_steps_over_damaged_checkpoints(tmp_path):
    run(tmp_path, HOOK, by_epoch=False, max_iters=9)
    os.truncate(tmp_path / "iter_9.pth", 1000)
    path = tmp_path / "iter_6.pth"
    weight = torch.load(path, weights_only=False)["state_dict"]["conv.weight"].numpy().tobytes()
    altered = bytearray(path.read_bytes())
    altered[altered.index(weight)] ^= 255
    path.write_bytes(altered)
    model, _ = run(tmp_path, HOOK, resume=True, by_epoch=False, max_iters=5)
    assert len(model.seen) == 2  # from iteration 3
    (tmp_path / "iter_3.pth").write_bytes(b"")
    (tmp_path / "iter_5.pth").unlink()
    with pytest.raises(UserError, match="every checkpoint in .* is damaged"):
        run(tmp_path, HOOK, resume=True, by_epoch=False, max_iters=6)


def test_resume_in_a_folder_that_was_moved(tmp_path):
    run(tmp_path / "here", HOOK, by_epoch=False, max_iters=3)
    (tmp_path / "here").rename(tmp_path / "there")
    model, _ = run(tmp_path / "there", HOOK, resume=True, by_epoch=False, max_iters=5)
    assert len(model.seen) == 2


def test_resume_of_nothing_starts_at_the_beginning(tmp_path):
    model, _ = run(tmp_path, HOOK, resume=True, by_epoch=False, max_iters=2)
    assert len(model.seen) == 2


def test_checkpoints_hold_a_config_that_loads_and_do_not_wait_for_its_format(tmp_path, monkeypatch):
    formatted = []

    def note(text, style_config):
        formatted.append(text)
        return text, False

    monkeypatch.setattr(yapf_api, "FormatCode", note)
    _, runner = run(tmp_path, HOOK, by_epoch=False, max_iters=3)
    once = len(formatted)
    _, runner = run(tmp_path, HOOK, by_epoch=False, max_iters=9, resume=True)
    assert once and len(formatted) == 2 * once, "at the start only, however many checkpoints are saved"
    stored = torch.load(tmp_path / "iter_9.pth", weights_only=False)["meta"]["cfg"]
    dumped = tmp_path / "dumped.py"
    runner.cfg.dump(dumped)
    assert runner.cfg.to_dict() == Config.fromstring(stored, ".py").to_dict() == Config.fromfile(dumped).to_dict()


def test_loading_a_foreign_checkpoint(tmp_path):
    path = tmp_path / "other.pth"
    state = Regressor().state_dict()
    loop = dict(by_epoch=False, max_iters=1, load_from=str(path))
    torch.save({"state_dict": {**state, "head.weight": torch.zeros(3)}}, path)
    with pytest.raises(UserError, match="1 keys unknown \\(first: head.weight\\).*strict=False"):
        run(tmp_path / "a", HOOK, **loop)
    run(tmp_path / "b", HOOK, strict=False, **loop)
    torch.save({"state_dict": {"head.weight": torch.zeros(3)}}, path)
    with pytest.raises(UserError, match="no key matches"):
        run(tmp_path / "c", HOOK, strict=False, **loop)
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        run(tmp_path / "d", HOOK, **loop)


def test_torchs_older_format(tmp_path):
    path = tmp_path / "old.pth"
    loop = dict(by_epoch=False, max_iters=1, load_from=str(path))
    state = {key: value + 1 for key, value in Regressor().state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, path, _use_new_zipfile_serialization=False)
    model, _ = run(tmp_path / "a", HOOK, **loop)
    torch.testing.assert_close(
        model.conv.weight.detach(), state["conv.weight"], atol=0.1, rtol=0
    )  # one step from there
    whole = path.read_bytes()
    for length, says in ((len(whole) - 9, "unexpected EOF"), (200, "damaged"), (0, "damaged")):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"old.pth .*{says}") as caught:
            run(tmp_path / "b", HOOK, **loop)
        assert "\n" not in str(caught.value)

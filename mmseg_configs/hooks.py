"""Lowers the temperature of all dynamic convolutions during training, per iteration."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError
from dynconv_plugins.temperature import came_trained

_KEY = "kept_temperatures"


@HOOKS.register_module(force=True)
class TemperatureHook(Hook):
    """Linear temperature from `start` to `end`, then constant; a function of the iteration alone, so resuming is exact.

    The temperature is a buffer of the operators: checkpoints hold it, and testing uses it. It is logged as
    ``temperature``. Attention that was trained before keeps the temperature it came with (``backbone.checkpoint``,
    ``load_from`` or ``init_cfg``), and so does attention that is frozen.

    Args:
        iters: Iterations until `end` is reached; for iteration-based loops.
        epochs: Epochs until `end` is reached, instead of `iters`; the paper's 10.
        start: First temperature.
        end: Last temperature.
        part: Part of the whole training until `end` is reached, where neither `iters` nor `epochs` is given.
        force: Anneals attention that was trained before as well.

    Raises:
        UserError: If both `iters` and `epochs` are given, a number is out of range, or the model has no dynamic
            convolution.

    Source: Dynamic Convolution (CVPR 2020), section 3.3; ODConv (ICLR 2022), section 4.1.
    """

    def __init__(
        self,
        iters: float | None = None,
        epochs: float | None = None,
        start: float = 30.0,
        end: float = 1.0,
        part: float = 0.1,
        force: bool = False,
    ) -> None:
        if iters is not None and epochs is not None:
            raise UserError("TemperatureHook takes either iters= or epochs=, not both")
        given = {"iters": iters, "epochs": epochs, "part": part, "start": start, "end": end}
        for name, value in given.items():
            if name in ("iters", "epochs") and value is None:
                continue
            if not isinstance(value, (int, float)) or not (value > 0 or (value == 0 and name not in ("start", "end"))):
                least = "above 0" if name in ("start", "end") else "of at least 0"
                raise UserError(f"TemperatureHook: {name} must be a number {least}, not {value!r}")
        self.iters, self.epochs, self.part, self.force = iters, epochs, part, force
        self.start, self.end = start, end

    def before_train(self, runner: Runner) -> None:
        """Makes sure that there is something to set, and finds out what keeps its temperature."""
        model = bare(runner)
        if not dc.operators_in(model):
            raise UserError("TemperatureHook: the model has no dynamic convolution; take the hook out of the config")
        operators = {n: op for n, op in dc.operators_in(model).items() if hasattr(op.attention, "temperature")}
        self.unit = 1 if self.epochs is None else len(runner.train_dataloader)
        length = self.iters if self.epochs is None else self.epochs
        length = self.part * runner.max_iters if length is None else length
        self.schedule = dc.LinearTemperature(start=self.start, end=self.end, epochs=length)
        if self.force:
            kept = []
        elif runner.iter:  # resumed: what it has learned since is no reason to stop
            kept = runner.message_hub.runtime_info.get(_KEY, [])
        else:
            kept = [name for name, op in operators.items() if came_trained(op)]
        runner.message_hub.update_info(_KEY, kept)
        if kept:
            now = operators[kept[0]].attention.temperature.item()
            runner.logger.info(
                f"trained attention keeps its temperature, {now:g} ({len(kept)} of {len(operators)} layers); "
                "TemperatureHook(force=True) would anneal it"
            )
        self.annealed = [op for name, op in operators.items() if name not in kept and _trains(op.attention)]
        for module in model.modules():
            if hasattr(module, "annealing"):  # `dynconv_plugins.anneal`: two would quarrel
                module.annealing = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Sets the temperature of this iteration."""
        temperature = self.schedule(runner.iter / self.unit)
        for operator in self.annealed:
            operator.set_temperature(temperature)
        if self.annealed:
            runner.message_hub.update_scalar("train/temperature", temperature)


def bare(runner: Runner) -> nn.Module:
    """The model without a wrapper for distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _trains(attention: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in attention.parameters())

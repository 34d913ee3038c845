"""Lowers the temperature of all dynamic convolutions during training, per iteration."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError


@HOOKS.register_module(force=True)
class TemperatureHook(Hook):
    """Linear temperature from `start` to `end`, then constant; a function of the iteration alone, so resuming is exact.

    The temperature is a buffer of the operators: checkpoints hold it, and testing uses it. It is logged as
    ``temperature``.

    Args:
        iters: Iterations until `end` is reached; for iteration-based loops.
        epochs: Epochs until `end` is reached, instead of `iters`; the paper's 10.
        start: First temperature.
        end: Last temperature.

    Raises:
        UserError: If not exactly one of `iters` and `epochs` is given, or the model has no dynamic convolution.

    Source: Dynamic Convolution (CVPR 2020), section 3.3; ODConv (ICLR 2022), section 4.1.
    """

    def __init__(
        self, iters: int | None = None, epochs: float | None = None, start: float = 30.0, end: float = 1.0
    ) -> None:
        if (iters is None) == (epochs is None):
            raise UserError("TemperatureHook takes either iters= or epochs=")
        self.per_iteration = iters is not None
        self.schedule = dc.LinearTemperature(start=start, end=end, epochs=iters if self.per_iteration else epochs)

    def before_train(self, runner: Runner) -> None:
        """Makes sure that there is something to set."""
        if not dc.operators_in(bare(runner)):
            raise UserError("TemperatureHook: the model has no dynamic convolution; take the hook out of the config")

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Sets the temperature of this iteration."""
        step = runner.iter if self.per_iteration else runner.iter / len(runner.train_dataloader)
        temperature = self.schedule(step)
        dc.set_temperature(bare(runner), temperature)
        runner.message_hub.update_scalar("train/temperature", temperature)


def bare(runner: Runner) -> nn.Module:
    """The model without a wrapper for distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model

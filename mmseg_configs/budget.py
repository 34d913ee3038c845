"""Logs what hard attention switches on during training."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError

from .hooks import bare


@HOOKS.register_module(force=True)
class BudgetHook(Hook):
    """Logs ``mask_rate`` and ``budget_loss`` of each iteration, means over the model's hard operators.

    The budget's gradient joins the backward pass by itself, see `dynconv_plugins.budget.Budget`; its loss is no part of
    the ``loss`` that mmseg logs. It is scaled as mmengine scales that: by the number of accumulated batches, and by the
    gradient scaler of ``AmpOptimWrapper``.

    Raises:
        UserError: If the model has no hard operator.
    """

    def before_train(self, runner: Runner) -> None:
        """Makes sure that there is something to log."""
        if not dc.budget(bare(runner)):
            raise UserError("BudgetHook: the model has no hard attention; take the hook out of the config")

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Tells the operators what the loss of this iteration will be multiplied by."""
        wrapper = runner.optim_wrapper
        scale = wrapper.scale_loss(torch.ones(())).item()
        if hasattr(wrapper, "loss_scaler"):
            scale *= wrapper.loss_scaler.get_scale()
        dc.set_loss_scale(bare(runner), scale)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Hands both numbers to the message hub, before the logger runs."""
        for name, value in dc.budget(bare(runner)).items():
            runner.message_hub.update_scalar(f"train/{name}", value)
